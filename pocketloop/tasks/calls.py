"""How right a model's function calls are, looked at part by part, as the Berkeley function-calling leaderboard does.

A call is right when its function is declared, its arguments fit the declared JSON schema, every argument has one of the
values that are right for it, and nothing is missing or added. Several calls may come in any order. Texts are compared
without case, surrounding punctuation and repeated space: unlike the leaderboard, which drops all spaces and points, so
that "1.5" would be "15".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import AcceptedCall, Example
from pocketloop.contracts.recipe import Catalogue

_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_AROUND = " \t\n.,;:!?\"'"


class Schemas:
    """The declared functions of a catalogue, each with its compiled schema; without a catalogue, any call will do."""

    def __init__(self, catalogue: Catalogue | None) -> None:
        self._any = catalogue is None
        self._functions = {str(one["name"]): one for one in catalogue.functions} if catalogue else {}
        self._validators: dict[str, Any] = {}

    def problem(self, call: ToolCall) -> str | None:
        """What is wrong with the form of a call, or `None`: its function, its arguments' names, or their types."""
        if self._any:
            return None
        if call.name not in self._functions:
            return "function not in the catalogue"
        reasons = {error.validator for error in self._validator(call.name).iter_errors(call.arguments)}
        if "additionalProperties" in reasons:
            return "unknown argument"
        if "required" in reasons:
            return "missing argument"
        return "argument against its schema" if reasons else None

    def parameters(self, name: str) -> dict[str, Any]:
        """The schema of a function's arguments; one that declares none takes none."""
        declared: dict[str, Any] = self._functions.get(name, {}).get("parameters") or _NO_ARGUMENTS
        return declared

    def defaults(self, name: str) -> dict[str, Any]:
        """What an argument is when it is left out, where the schema says so."""
        properties = self.parameters(name).get("properties", {})
        return {key: schema["default"] for key, schema in properties.items() if "default" in schema}

    def _validator(self, name: str) -> Any:
        from jsonschema import Draft202012Validator

        if name not in self._validators:
            schema = self.parameters(name)
            # An argument that is not listed is made up, unless nothing is listed at all.
            listed = {"additionalProperties": False} if "properties" in schema else {}
            self._validators[name] = Draft202012Validator({**listed, **schema})
        return self._validators[name]


@dataclass(frozen=True)
class CallScore:
    """How one answer's calls compare with the right ones.

    Arguments are counted over all calls: `said` with how many of them have a right value, and `wanted` (those that may
    not be left out) with how many were given so. `carried` are those of the wanted ones whose value stands earlier in
    the conversation and not in the user's last words.
    """

    right: bool
    valid: bool
    said: int
    said_right: int
    wanted: int
    wanted_right: int
    carried: int
    carried_right: int


def accepted_calls(example: Example) -> list[AcceptedCall]:
    """What the example's answer may be, call by call."""
    return example.accepts or [
        AcceptedCall(name=call.name, arguments={name: [value] for name, value in call.arguments.items()})
        for call in example.answer.tool_calls
    ]


def score_calls(said: Sequence[ToolCall], example: Example, schemas: Schemas) -> CallScore:
    """Compare calls with the example's; calls are matched so that most of them, then most arguments, are right."""
    wanted = accepted_calls(example)
    valid = [schemas.problem(call) is None for call in said]
    met = {(i, j): _met(said[i], wanted[j], schemas) for i, j in product(range(len(said)), range(len(wanted)))}
    right = {pair: found.whole and valid[pair[0]] for pair, found in met.items()}
    pairs = _matched(len(said), len(wanted), {pair: (right[pair], len(met[pair].right)) for pair in met})
    carried = [_carried(call, example.prompt) for call in wanted]
    return CallScore(
        right=len(said) == len(wanted) == len(pairs) and all(right[pair] for pair in pairs),
        valid=bool(said) and all(valid),
        said=sum(len(call.arguments) for call in said),
        said_right=sum(len(met[pair].right) for pair in pairs),
        wanted=sum(len(call.arguments) - len(call.optional) for call in wanted),
        wanted_right=sum(len(met[i, j].given - set(wanted[j].optional)) for i, j in pairs),
        carried=sum(len(names) for names in carried),
        carried_right=sum(len(met[i, j].given & carried[j]) for i, j in pairs),
    )


@dataclass(frozen=True)
class _Met:
    """One call against a wanted one: arguments said rightly, wanted ones so given, and whether nothing is wrong."""

    right: frozenset[str]
    given: frozenset[str]
    whole: bool


def _met(call: ToolCall, wanted: AcceptedCall, schemas: Schemas) -> _Met:
    if call.name != wanted.name:
        return _Met(frozenset(), frozenset(), whole=False)
    defaults = schemas.defaults(call.name)
    right, given = set(), set()
    for name, value in call.arguments.items():
        if any(same_value(value, other) for other in wanted.arguments.get(name, ())):
            right.add(name)
            given.add(name)
        elif name not in wanted.arguments and name in defaults and same_value(value, defaults[name]):
            right.add(name)
    for name, values in wanted.arguments.items():
        left_out = name not in call.arguments
        if left_out and name in defaults and any(same_value(defaults[name], other) for other in values):
            given.add(name)
    missing = set(wanted.arguments) - given - (set(wanted.optional) - set(call.arguments))
    return _Met(frozenset(right), frozenset(given), whole=len(right) == len(call.arguments) and not missing)


def _matched(rows: int, columns: int, worth: dict[tuple[int, int], tuple[bool, int]]) -> list[tuple[int, int]]:
    """Pairs (said, wanted), each in one pair at most: right calls count first, then right arguments."""
    if rows == 0 or columns == 0:
        return []
    if rows == columns == 1:
        return [(0, 0)]
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    more = 1 + sum(arguments for _, arguments in worth.values())
    table = np.zeros((rows, columns))
    for pair, (right, arguments) in worth.items():
        table[pair] = more * right + arguments
    return [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(table, maximize=True), strict=True)]


def _carried(call: AcceptedCall, prompt: Sequence[Message]) -> set[str]:
    """The arguments whose value a model can only know from before the user's last words."""
    users = [at for at, message in enumerate(prompt) if message.role == "user"]
    if not users:
        return set()
    latest = _written(prompt[users[-1] : users[-1] + 1])
    # What came after the user's words (a tool's result, say) is as little in them as what came before.
    earlier = _written([*prompt[: users[-1]], *prompt[users[-1] + 1 :]])
    found = set()
    for name, values in call.arguments.items():
        if name in call.optional:
            continue
        texts = [text for text in (_text(value) for value in values) if text]
        if any(_stands(text, earlier) for text in texts) and not any(_stands(text, latest) for text in texts):
            found.add(name)
    return found


def _written(messages: Sequence[Message]) -> str:
    parts = [message.content for message in messages]
    parts += [
        text for message in messages for call in message.tool_calls for text in map(_text, call.arguments.values())
    ]
    return f" {' '.join(_words(' '.join(parts)))} "


def _stands(text: str, written: str) -> bool:
    return f" {' '.join(_words(text))} " in written


def _words(text: str) -> list[str]:
    return [word for word in (part.strip(_AROUND) for part in text.translate(_QUOTES).casefold().split()) if word]


def _text(value: Any) -> str:
    """A text or number as it would be written; nothing for anything else, whose words could stand anywhere."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def same_value(left: Any, right: Any) -> bool:
    """Whether two JSON values mean the same; a boolean is no number, and 1 is 1.0."""
    return bool(_loose(left) == _loose(right))


def _loose(value: Any) -> Any:
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, str):
        text = " ".join(value.translate(_QUOTES).casefold().split())
        return text.strip(_AROUND) or text
    if isinstance(value, list):
        return [_loose(item) for item in value]
    if isinstance(value, dict):
        return {key: _loose(item) for key, item in value.items()}
    return value
