"""Verifiable rewards: what an answer is worth when a program can tell how right it is.

Every reward lies in [0, 1], is 1 for exactly the answers that evaluation counts as right, and grows with each thing
that an answer gets right, so that a model which is never wholly right still learns. Nothing is earned by saying more:
each call that is not asked for lowers the reward of those that are, and words where none belong cost all of it.
"""

from collections.abc import Callable
from itertools import product

from pocketloop.contracts.events import ToolCall
from pocketloop.contracts.examples import Example
from pocketloop.contracts.recipe import Catalogue
from pocketloop.tasks.answers import read_calls, same_calls
from pocketloop.tasks.tasks import TaskSpec

_FORM = 0.1
"""What a sound form alone is worth: calls that can be read, all of declared functions."""

_NAME = 0.4
"""What a call's name is worth beside its arguments."""

Verify = Callable[[str, Example], float]


def verifier(task: TaskSpec) -> Verify:
    """What an answer's text is worth for an example of `task`."""
    rate = {"intent": _rate_label, "function_call": _rate_calls, "chat": _rate_chat}[task.name]
    return lambda text, example: rate(text, example, task.catalogue)


def is_verifiable(task: TaskSpec, example: Example) -> bool:
    """Whether a program can tell a right answer to `example`: a label, or calls."""
    return task.name == "intent" or bool(example.answer.tool_calls)


def _rate_label(text: str, example: Example, catalogue: Catalogue | None) -> float:
    return float(text.strip() == example.answer.content.strip())


def _rate_calls(text: str, example: Example, catalogue: Catalogue | None) -> float:
    """Calls and nothing else; words that the right answer does not hold, either, cost the whole reward."""
    parsed = read_calls(text)
    if parsed is None or parsed[0] != example.answer.content.strip():
        return 0.0
    return _worth(parsed[1], example.answer.tool_calls, catalogue)


def _rate_chat(text: str, example: Example, catalogue: Catalogue | None) -> float:
    """The calls of a turn; the words beside them are free and earn nothing."""
    parsed = read_calls(text)
    return 0.0 if parsed is None else _worth(parsed[1], example.answer.tool_calls, catalogue)


def _worth(calls: list[ToolCall], right: list[ToolCall], catalogue: Catalogue | None) -> float:
    if same_calls(calls, right):
        return 1.0
    if not calls or not right:
        return 0.0
    sound = catalogue is None or all(catalogue.function(call.name) is not None for call in calls)
    return _FORM * sound + (1 - _FORM) * _matched(calls, right) / max(len(calls), len(right))


def _matched(calls: list[ToolCall], right: list[ToolCall]) -> float:
    """Sum of the worths of pairs (call, right call), the best pairs first and each call in one pair at most."""
    pairs = sorted(
        ((_similarity(calls[i], right[j]), -i, -j) for i, j in product(range(len(calls)), range(len(right)))),
        reverse=True,
    )
    total, taken, met = 0.0, set(), set()
    for worth, i, j in pairs:
        if i not in taken and j not in met:
            total += worth
            taken.add(i)
            met.add(j)
    return total


def _similarity(call: ToolCall, right: ToolCall) -> float:
    """In [0, 1]: nothing for another function; else its name, and the share of arguments that are equal.

    The share is of the arguments that either call gives, so that neither leaving out nor adding one pays.
    """
    if call.name != right.name:
        return 0.0
    names = set(call.arguments) | set(right.arguments)
    if not names:
        return 1.0
    equal = sum(
        name in call.arguments and name in right.arguments and _same_value(call.arguments[name], right.arguments[name])
        for name in names
    )
    return _NAME + (1 - _NAME) * equal / len(names)


def _same_value(one: object, other: object) -> bool:
    return same_calls([ToolCall(name="f", arguments={"x": one})], [ToolCall(name="f", arguments={"x": other})])
