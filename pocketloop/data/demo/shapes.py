"""The demo sets of an assistant with several agents: what each of them answers, and which one a message is for."""

import re
from collections.abc import Callable, Iterator
from random import Random

from pocketloop.contracts.errors import DataError
from pocketloop.data.demo import arithmetic, logistics, persona, wellness
from pocketloop.data.demo._random import Split, rng_for
from pocketloop.data.demo.examples import DECLINE, OUT_OF_SCOPE, function_request, harmful_request, request
from pocketloop.data.demo.exchange import Exchange
from pocketloop.data.demo.grammar import functions
from pocketloop.data.demo.writing import Writer

_TRIES = 400
_SUM = re.compile(r"\b(percent|times|plus|square root)\b")


def _household(rng: Random, split: Split) -> Exchange:
    names = [name for name in functions() if name != DECLINE]
    return Exchange(function_request(Writer(rng, split), rng.choice(names)).said.text, "")


def _out_of_scope(rng: Random, split: Split) -> Exchange:
    """A harmful request, or one for which there is no agent."""
    writer, section = Writer(rng, split), functions()[DECLINE]
    if rng.random() < 0.3:
        return Exchange(harmful_request(writer).said.text, "")
    templates = [template for template in section.said[split] if not _SUM.search(template.text)]
    return Exchange(request(writer, section, rng.choice(templates)).said.text, "")


_Make = Callable[[Random, Split], Exchange]
AGENTS: dict[str, _Make] = {
    "wellness": wellness.exchange,
    "math": arithmetic.exchange,
    "logistics": logistics.exchange,
    "persona": persona.exchange,
}
"""Agents whose answers are written here; the household's functions are a set of their own."""
_FOR: dict[str, _Make] = {**AGENTS, "functions": _household, OUT_OF_SCOPE: _out_of_scope}
"""Who a message can be for."""
SHAPES = ("gateway", *AGENTS)


def demo_shape(name: str, split: Split, n: int, seed: int = 7) -> Iterator[Exchange]:
    """`n` different exchanges of one agent, or of the gateway (balanced over agents), the same for the same `seed`.

    The two splits share no template, and no open-class value or pair of numbers.

    Raises:
        DataError: there is no such set, or the templates cannot yield `n` different exchanges.
    """
    if name not in SHAPES:
        raise DataError(f"there is no demo set {name!r}: use one of {', '.join(SHAPES)}")
    rng = rng_for("shapes", name, split, seed)
    seen: set[tuple[str, str]] = set()
    order: list[str] = []
    for _ in range(n):
        if not order:
            order = rng.sample(list(_FOR), len(_FOR)) if name == "gateway" else [name]
        agent = order.pop()
        found = _new(_FOR[agent], rng_for(rng.random()), split, seen, alone=name == "gateway")
        if found is None:
            raise DataError(f"the demo templates yield no {n} different exchanges for {agent}/{split}: ask for fewer")
        yield Exchange(found.said, agent, task="intent") if name == "gateway" else found


def _new(make: _Make, rng: Random, split: Split, seen: set[tuple[str, str]], alone: bool) -> Exchange | None:
    """An exchange that is not in `seen`, which it joins; `alone` looks at the user's words only."""
    for _ in range(_TRIES):
        made = make(rng, split)
        key = (made.said.casefold().strip(" .?!"), "" if alone else made.system)
        if key not in seen:
            seen.add(key)
            return made
    return None
