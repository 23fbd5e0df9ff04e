"""How the deployed adapter errs, and what its users say about it."""

from collections.abc import Callable
from random import Random
from typing import Any

Call = dict[str, Any]

_STRAY_LABELS = (
    "shopping",
    "general",
    "unknown",
    "I think it is music",
    "calendar or reminders",
    "label: weather",
    "help",
)


def wrong_call(call: Call, rng: Random, another: Callable[[str | None], Call]) -> Call:
    """A call that is not `call`.

    `another(function)` makes somebody else's call to `function`, or to any other one: its values stand in nobody's
    words here. Most mistakes can be seen (a value that was not said, the main argument missing, another function);
    some cannot without the person's word (a value cut short, another enumerated value, a detail left out).
    """
    name, arguments = call["name"], dict(call["arguments"])
    words = [key for key, value in arguments.items() if isinstance(value, str) and " " in value]
    kind = rng.choices(["invented", "missing", "function", "short", "detail"], [35, 22, 25, 12, 6])[0]
    if kind == "short" and words:
        key = rng.choice(words)
        return {"name": name, "arguments": {**arguments, key: arguments[key].rsplit(" ", 1)[0]}}
    if kind == "missing" and len(arguments) > 1:
        arguments.pop(next(iter(arguments)))
        return {"name": name, "arguments": arguments}
    if kind == "detail" and len(arguments) > 1:
        arguments.pop(list(arguments)[-1])
        return {"name": name, "arguments": arguments}
    if kind == "invented":
        for _ in range(10):
            other = another(name)["arguments"]
            changed = [key for key in arguments if key in other and other[key] != arguments[key]]
            if changed:
                key = rng.choice(changed)
                return {"name": name, "arguments": {**arguments, key: other[key]}}
    return another(None)


def wrong_label(label: str, labels: list[str], rng: Random) -> str:
    """Another intent, or an answer that is no label at all."""
    if rng.random() < 0.4:
        return rng.choice(_STRAY_LABELS)
    return rng.choice([other for other in labels if other != label])


def feedback(right: bool, correction: Any, rng: Random) -> dict[str, Any]:
    """The person's thumb (three in a hundred point the wrong way) and, after a mistake, sometimes a correction."""
    rated = rng.random() < (0.40 if right else 0.78)
    if not rated:
        return {"rating": None, "correction": None}
    pleased = right if rng.random() >= 0.03 else not right
    if pleased or right:
        return {"rating": "up" if pleased else "down", "correction": None}
    return {"rating": "down", "correction": correction if rng.random() < 0.45 else None}
