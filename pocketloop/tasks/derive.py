"""What somebody's own examples say about their task: the label set, or the functions and their parameters."""

from collections.abc import Iterable
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import ToolCall
from pocketloop.contracts.examples import Example
from pocketloop.contracts.recipe import Catalogue

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def derive_catalogue(examples: Iterable[Example]) -> Catalogue:
    """The catalogue that covers every answer in `examples`, which are all intents or all function calls.

    A parameter is required when every call of its function gives it, and `x-grounded` is false unless its strings
    always stand in the user's words.

    Raises:
        DataError: there are no examples, or they hold neither labels nor calls.
    """
    labels: set[str] = set()
    calls: list[tuple[ToolCall, str]] = []
    for example in examples:
        words = " ".join(turn.content for turn in example.prompt if turn.role == "user").casefold()
        calls.extend((call, words) for call in example.answer.tool_calls)
        if example.task == "intent":
            labels.add(example.answer.content)
    if labels and not calls:
        refusal = next((name for name in ("out_of_scope", "oos", "none") if name in labels), None)
        return Catalogue(labels=sorted(labels), refusal=refusal)
    if not calls:
        raise DataError("the examples hold neither labels nor function calls")
    return Catalogue(functions=[_declare(name, calls) for name in sorted({call.name for call, _ in calls})])


def _declare(name: str, calls: list[tuple[ToolCall, str]]) -> dict[str, Any]:
    mine = [(call.arguments, words) for call, words in calls if call.name == name]
    keys = sorted({key for arguments, _ in mine for key in arguments})
    properties = {key: _parameter([(a[key], words) for a, words in mine if key in a]) for key in keys}
    required = [key for key in keys if all(key in arguments for arguments, _ in mine)]
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": name, "description": name.replace("_", " "), "parameters": parameters}


def _parameter(seen: list[tuple[Any, str]]) -> dict[str, Any]:
    types = sorted({_TYPES.get(type(value), "null") for value, _ in seen})
    schema: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
    if not all(isinstance(value, str) and value.casefold() in words for value, words in seen):
        schema["x-grounded"] = False
    return schema
