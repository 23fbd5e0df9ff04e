"""What can be wrong with an answer by its form alone, told without knowing the right one."""

from typing import Any

from pocketloop.contracts.events import Message
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import Catalogue
from pocketloop.tasks.answers import read_calls
from pocketloop.tasks.calls import Schemas

_DANGLING = frozenset("a an and at but by for from if in is of on or that the to with".split())
"""An answer whose last word is one of these, or that ends with a comma, was cut off. A missing full stop alone says
nothing: people leave it out."""


class FormChecker:
    """Checks answers of one task against one catalogue."""

    def __init__(self, task: Task, catalogue: Catalogue | None) -> None:
        self._task = task
        self._catalogue = catalogue
        self._schemas = Schemas(catalogue)

    def problem(self, prompt: list[Message], answer: Message, grounded: bool = True) -> str | None:
        """Why the answer cannot be right, or `None`.

        With `grounded`, every string argument that its schema does not mark `x-grounded: false` must stand in the
        user's turns, ignoring case and spacing.
        """
        if self._task == "intent":
            return self._intent_problem(answer)
        if self._task == "function_call":
            return self._call_problem(prompt, answer, grounded)
        return _chat_problem(answer)

    def _intent_problem(self, answer: Message) -> str | None:
        labels = self._catalogue.labels if self._catalogue else []
        return None if answer.content.strip() in labels and not answer.tool_calls else "label not in the catalogue"

    def _call_problem(self, prompt: list[Message], answer: Message, grounded: bool) -> str | None:
        if not answer.tool_calls:
            return "no call"
        said = _flat(" ".join(message.content for message in prompt if message.role == "user"))
        for call in answer.tool_calls:
            problem = self._schemas.problem(call)
            if (
                problem is None
                and grounded
                and not _grounded(call.arguments, self._schemas.parameters(call.name), said)
            ):
                problem = "argument not in the user's words"
            if problem:
                return problem
        return None


def _grounded(value: Any, schema: dict[str, Any], said: str) -> bool:
    """Whether all strings in `value` stand in `said`, save where their schema lifts that."""
    if schema.get("x-grounded") is False:
        return True
    if isinstance(value, str):
        return _flat(value) in said
    if isinstance(value, dict):
        parts = schema.get("properties", {})
        return all(_grounded(item, parts.get(key, {}), said) for key, item in value.items())
    if isinstance(value, list):
        return all(_grounded(item, schema.get("items", {}), said) for item in value)
    return True


def _flat(text: str) -> str:
    return " ".join(text.casefold().split())


def _chat_problem(answer: Message) -> str | None:
    text = answer.content.strip()
    if not text and not answer.tool_calls:
        return "empty answer"
    if read_calls(text) is None:
        return "unreadable call"
    if not answer.tool_calls and (text.endswith(",") or text.split()[-1].casefold() in _DANGLING):
        return "cut off"
    return None
