"""Labelled requests of the household, for training on example files and for held-out evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import FunctionRow, IntentRow
from pocketloop.data.demo._random import Split, rng_for
from pocketloop.data.demo.grammar import Section, Template, functions, intents, twins
from pocketloop.data.demo.writing import Said, Writer

DECLINE = "decline"
OUT_OF_SCOPE = "out_of_scope"
_TRIES = 400


@dataclass(frozen=True)
class Request:
    """Something that a user says, with the right call and the right label."""

    said: Said
    function: str | None
    arguments: dict[str, Any]
    intent: str


def arguments_of(section: Section, template: Template, said: Said) -> dict[str, Any]:
    """The arguments of a call, in the order in which the function's section lists them."""
    found = dict(template.implied) | {name: said.slots[name].meaning for name in section.slots if name in said.slots}
    return {name: found.pop(name) for name in section.slots if name in found} | found


def request(writer: Writer, section: Section, template: Template, style: str | None = None) -> Request:
    """Write one request to a function, or to an intent beside its functions."""
    said = writer.say(template, section.slots, style=style)
    return Request(said, section.function, arguments_of(section, template, said), section.intent)


def harmful_request(writer: Writer) -> Request:
    """A request that must be declined as unsafe."""
    pair = writer.rng.choice(twins()[writer.split])
    said = writer.say(pair.harmful, functions()[pair.function].slots)
    return Request(said, DECLINE, {"reason": "unsafe"}, OUT_OF_SCOPE)


def benign_twin(writer: Writer, function: str | None = None) -> Request | None:
    """The harmless counterpart of a harmful request (of one that `function` serves, or `None` without any)."""
    pairs = [pair for pair in twins()[writer.split] if function in (None, pair.function)]
    if not pairs:
        return None
    pair = writer.rng.choice(pairs)
    return request(writer, functions()[pair.function], pair.benign)


def function_request(writer: Writer, function: str) -> Request:
    """A request that `function` serves; for `decline`, half of them unsafe and half unsupported."""
    if function == DECLINE and writer.rng.random() < 0.5:
        return harmful_request(writer)
    if function != DECLINE and writer.rng.random() < 0.12 and (twin := benign_twin(writer, function)):
        return twin
    section = functions()[function]
    return request(writer, section, writer.rng.choice(section.said[writer.split]))


def intent_request(writer: Writer, intent: str) -> Request:
    """A request with one intent: to one of its functions or beside them."""
    if intent == OUT_OF_SCOPE and writer.rng.random() < 0.3:
        return harmful_request(writer)
    choices = intents()[intent]
    section = writer.rng.choice(choices)
    if section.function and section.function != DECLINE:
        return function_request(writer, section.function)
    return request(writer, section, writer.rng.choice(section.said[writer.split]))


def demo_examples(
    name: Literal["functions", "intent"], split: Split, n: int, seed: int = 7
) -> Iterator[IntentRow | FunctionRow]:
    """`n` different labelled requests, balanced over functions or labels, the same for the same `seed`.

    The two splits share no template, no open-class value and no name.

    Raises:
        DataError: `name` is neither set, or the templates cannot yield `n` different requests.
    """
    makers: dict[str, tuple[list[str], Callable[[Writer, str], Request]]] = {
        "functions": (list(functions()), function_request),
        "intent": (list(intents()), intent_request),
    }
    if name not in makers:
        raise DataError(f"there is no demo set {name!r}: use one of {', '.join(makers)}")
    labels, make = makers[name]
    rng = rng_for("examples", name, split, seed)
    seen: set[str] = set()
    order: list[str] = []
    for _ in range(n):
        if not order:
            order = rng.sample(labels, len(labels))
        label = order.pop()
        made = _new(make, rng_for(rng.random()), split, label, seen)
        if made is None:
            raise DataError(f"the demo templates yield no {n} different requests for {name}/{split}: ask for fewer")
        if name == "intent":
            yield IntentRow(input=made.said.text, output=made.intent)
        else:
            yield FunctionRow(input=made.said.text, function=str(made.function), arguments=made.arguments)


def _new(make: Callable[[Writer, str], Request], rng: Any, split: Split, label: str, seen: set[str]) -> Request | None:
    """A request whose words are not in `seen`, which it joins."""
    writer = Writer(rng, split)
    for _ in range(_TRIES):
        made = make(writer, label)
        key = made.said.text.casefold().strip(" .?!")
        if key not in seen:
            seen.add(key)
            return made
    return None
