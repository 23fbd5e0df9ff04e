"""The three tasks: what the model is shown, what it should say, and how its answer counts.

Every base is shown the same thing through its own chat template, and answers in plain text: a label, calls as JSON
lines, or words. So one parser reads them all.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Conversation, Message, with_system
from pocketloop.contracts.examples import Example
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.tasks.answers import read_calls, same_calls, write_answer
from pocketloop.tasks.verify import passes

Scores = dict[str, float]


@dataclass(frozen=True)
class TaskSpec:
    """A recipe's task with its catalogue: everything that prompting and scoring need."""

    name: str
    catalogue: Catalogue | None
    system: str = ""
    declare_tools: bool = False
    roles: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, catalogue: Catalogue | None) -> "TaskSpec":
        """The task that `recipe` describes."""
        prompt = recipe.prompt
        return cls(recipe.task, catalogue, prompt.system, prompt.declare_tools, prompt.roles)

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """Function declarations for the chat template, when the recipe wants them in the prompt."""
        if not self.declare_tools or self.catalogue is None:
            return None
        return [{"type": "function", "function": function} for function in self.catalogue.functions]

    def system_of(self, role: str) -> str:
        """The system text of a role; that of the task for the empty one.

        Raises:
            DataError: the recipe defines no such role.
        """
        if not role:
            return self.system
        if role not in self.roles:
            known = ", ".join(sorted(self.roles)) or "none"
            raise DataError(f"an example has the role {role!r}, which prompt.roles does not define (defined: {known})")
        return self.roles[role]

    def conversation(self, messages: list[Message], role: str = "") -> Conversation:
        """Messages as a chat template takes them, the role's system text first; calls become what the model writes.

        Raises:
            DataError: the recipe defines no such role.
        """
        said = [{"role": message.role, "content": write_answer(message)} for message in messages]
        return with_system(self.system_of(role), said)

    @property
    def metrics(self) -> list[str]:
        """The names that `score` gives, the main one first."""
        return list(_METRICS[self.name])

    def score(self, text: str, example: Example) -> Scores:
        """Score one answer, each metric in [0, 1] (1 is right).

        `chat_right` asks for the right calls and for every check of the example: it says little where there is neither.
        """
        return _SCORERS[self.name](text, example, self.catalogue)

    def label_of(self, text: str) -> str:
        """The answer's class for a confusion table: the label, the function's name, or what kind of turn it is."""
        if self.name == "intent":
            label = text.strip()
            known = self.catalogue.labels if self.catalogue else []
            return label if label in known else "(unknown label)"
        parsed = read_calls(text)
        if parsed is None:
            return "(unreadable)"
        return parsed[1][0].name if parsed[1] else "(no call)"

    def declines(self, text: str) -> bool:
        """Whether a structured answer declines the request, by the catalogue's `refusal`."""
        refusal = self.catalogue.refusal if self.catalogue else None
        return refusal is not None and self.label_of(text) == refusal


def _score_intent(text: str, example: Example, catalogue: Catalogue | None) -> Scores:
    return {"intent_accuracy": float(text.strip() == example.answer.content.strip())}


def _score_function_call(text: str, example: Example, catalogue: Catalogue | None) -> Scores:
    parsed = read_calls(text)
    calls = parsed[1] if parsed else []
    names = Counter(call.name for call in calls) == Counter(call.name for call in example.answer.tool_calls)
    return {
        "function_exact": float(same_calls(calls, example.answer.tool_calls)),
        "function_name": float(names),
        "function_valid": float(bool(calls) and all(_is_declared(call.name, catalogue) for call in calls)),
    }


def _is_declared(name: str, catalogue: Catalogue | None) -> bool:
    return catalogue is not None and catalogue.function(name) is not None


def _score_chat(text: str, example: Example, catalogue: Catalogue | None) -> Scores:
    parsed = read_calls(text)
    words, calls = parsed if parsed else (text, [])
    called = parsed is not None and same_calls(calls, example.answer.tool_calls)
    return {
        "chat_right": float(called and bool(words or calls) and all(passes(check, words) for check in example.checks)),
        "chat_call": float(called),
        "chat_token_f1": token_f1(words, example.answer.content),
        "chat_nonempty": float(bool(words or calls)),
    }


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words that two texts share, as SQuAD counts it (Rajpurkar et al., 2016); two empty texts agree."""
    left, right = Counter(answer.lower().split()), Counter(reference.lower().split())
    if not left or not right:
        return float(left == right)
    shared = sum((left & right).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / sum(left.values()), shared / sum(right.values())
    return 2 * precision * recall / (precision + recall)


_METRICS: dict[str, tuple[str, ...]] = {
    "intent": ("intent_accuracy",),
    "function_call": ("function_exact", "function_name", "function_valid"),
    "chat": ("chat_token_f1", "chat_right", "chat_call", "chat_nonempty"),
}
_SCORERS: dict[str, Callable[[str, Example, Catalogue | None], Scores]] = {
    "intent": _score_intent,
    "function_call": _score_function_call,
    "chat": _score_chat,
}
