"""Reading a model's answer: the calls in a text, written as the seeds write them."""

import json
from typing import Any

from pocketloop.contracts.events import Message, ToolCall, written_call

_MAX_DEPTH = 64


def write_calls(calls: list[ToolCall]) -> str:
    """One `{"function": …, "arguments": …}` object a line."""
    return "\n".join(written_call(call.name, call.arguments) for call in calls)


def write_answer(message: Message) -> str:
    """What the model is to say for this turn: its text, then its calls."""
    return "\n".join(part for part in (message.content, write_calls(message.tool_calls)) if part)


def read_calls(text: str) -> tuple[str, list[ToolCall]] | None:
    """Split an answer into its text and its calls; `None` when something that began as a call is no valid one.

    A call is a JSON object with exactly `function` and `arguments` that starts at the beginning of a line.
    """
    decoder = json.JSONDecoder()
    words: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while position < len(text):
        end_of_line = text.find("\n", position)
        end_of_line = len(text) if end_of_line < 0 else end_of_line
        if text[position:].lstrip(" ").startswith('{"function"'):
            start = text.index("{", position)
            try:
                value, end = decoder.raw_decode(text, start)
            except (json.JSONDecodeError, RecursionError):
                return None
            call = _as_call(value)
            rest = text.find("\n", end)
            if call is None or text[end : len(text) if rest < 0 else rest].strip():
                return None
            calls.append(call)
            position = len(text) if rest < 0 else rest + 1
            continue
        words.append(text[position:end_of_line])
        position = end_of_line + 1
    return "\n".join(words).strip(), calls


def _as_call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or set(value) != {"function", "arguments"}:
        return None
    if not isinstance(value["function"], str) or not isinstance(value["arguments"], dict):
        return None
    if not 1 <= len(value["function"]) <= 128 or _is_deep(value["arguments"]):
        return None
    return ToolCall(name=value["function"], arguments=value["arguments"])


def _is_deep(value: Any) -> bool:
    """Whether values are nested more than `_MAX_DEPTH` levels: whatever walks them later may recurse."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        nested = [item for item in level if isinstance(item, list | dict)]
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return bool(level)


def same_calls(left: list[ToolCall], right: list[ToolCall]) -> bool:
    """Whether two lists hold the same calls in any order; strings are compared without surrounding space."""
    remaining = list(right)
    for call in left:
        match = next((place for place, other in enumerate(remaining) if _same(call, other)), None)
        if match is None:
            return False
        del remaining[match]
    return not remaining


def _same(left: ToolCall, right: ToolCall) -> bool:
    return left.name == right.name and _plain(left.arguments) == _plain(right.arguments)


def _plain(value: Any) -> Any:
    # True == 1 in Python, not in JSON: tag booleans so that they only equal booleans.
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
