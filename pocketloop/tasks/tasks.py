"""The three tasks: what the model is shown, what it should say, and how its answer counts.

Every base is shown the same thing through its own chat template, and answers in plain text: a label, calls as JSON
lines, or words. So one parser reads them all.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Conversation, Message, with_system
from pocketloop.contracts.examples import Example
from pocketloop.contracts.metrics import ITEM_METRICS
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.tasks.answers import read_calls, same_calls, write_answer
from pocketloop.tasks.calls import Schemas, score_calls
from pocketloop.tasks.verify import passes, passes_loosely

Scores = dict[str, float]


class Measured(NamedTuple):
    """One answer's scores in [0, 1], and the counts that ratios over many answers are made of."""

    scores: Scores
    counts: dict[str, float]


@dataclass(frozen=True)
class TaskSpec:
    """A recipe's task with its catalogue: everything that prompting and scoring need."""

    name: Task
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

    @cached_property
    def schemas(self) -> Schemas:
        """The catalogue's functions, compiled."""
        return Schemas(self.catalogue)

    @property
    def metrics(self) -> list[str]:
        """The names that `score` may give, the main one first."""
        return list(ITEM_METRICS[self.name])

    def score(self, text: str, example: Example) -> Scores:
        """Score one answer, each metric in [0, 1] (1 is right); one that does not apply to the example is absent."""
        return self.measure(text, example).scores

    def measure(self, text: str, example: Example) -> Measured:
        """Score one answer and count its parts.

        `intent_out_of_scope` is for requests that the catalogue's refusal declines. `function_exact` and
        `function_name` ask for equal calls and for equal names; `function_right` accepts whatever the example does and
        the schema allows; `function_valid` asks for the schema alone. `chat_call` asks for equal calls; `chat_right`
        for calls that the example accepts and for every check of it, and says little where there is neither.
        `chat_checks` is there where checks are; `chat_checks_loose` forgives what stands around the answer proper.
        """
        return _MEASURES[self.name](text, example, self)

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

    @property
    def refusal(self) -> str | None:
        """The label or function that declines a request, if there is one."""
        return self.catalogue.refusal if self.catalogue else None

    def declines(self, text: str) -> bool:
        """Whether a structured answer declines the request, by the catalogue's `refusal`."""
        return self.refusal is not None and self.label_of(text) == self.refusal


def _measure_intent(text: str, example: Example, task: TaskSpec) -> Measured:
    reference = example.answer.content.strip()
    right = float(text.strip() == reference)
    scores = {"intent_accuracy": right}
    if task.catalogue and reference == task.catalogue.refusal:
        scores["intent_out_of_scope"] = right
    return Measured(scores, {})


def _measure_function_call(text: str, example: Example, task: TaskSpec) -> Measured:
    parsed = read_calls(text)
    calls = parsed[1] if parsed else []
    found = score_calls(calls, example, task.schemas)
    names = Counter(call.name for call in calls) == Counter(call.name for call in example.answer.tool_calls)
    scores = {
        "function_exact": float(same_calls(calls, example.answer.tool_calls)),
        "function_name": float(names),
        "function_right": float(found.right),
        "function_valid": float(found.valid),
    }
    return Measured(scores, _counted(asdict(found)))


def _measure_chat(text: str, example: Example, task: TaskSpec) -> Measured:
    parsed = read_calls(text)
    words, calls = parsed if parsed else (text, [])
    found = score_calls(calls, example, task.schemas)
    exact = parsed is not None and same_calls(calls, example.answer.tool_calls)
    called = exact or (parsed is not None and found.right)
    passed = [passes(check, words) for check in example.checks]
    scores = {
        "chat_token_f1": token_f1(words, example.answer.content),
        "chat_right": float(called and bool(words or calls) and all(passed)),
        "chat_call": float(exact),
        "chat_nonempty": float(bool(words or calls)),
    }
    counts = _counted(asdict(found)) | {"words": float(len(words.split()))}
    if passed:
        scores["chat_checks"] = sum(passed) / len(passed)
        scores["chat_checks_loose"] = sum(passes_loosely(check, words) for check in example.checks) / len(passed)
        counts |= {"checks": float(len(passed)), "checks_right": float(sum(passed))}
    return Measured(scores, counts)


def _counted(found: dict[str, Any]) -> dict[str, float]:
    """The counts of arguments that are not all zero, under the names of `COUNTS`."""
    parts = {f"arguments_{name}": float(found[name]) for name in COUNTS}
    return parts if any(parts.values()) else {}


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


COUNTS = ("said", "said_right", "wanted", "wanted_right", "carried", "carried_right")
"""Of arguments, as `CallScore` has them."""
_MEASURES: dict[str, Callable[[str, Example, TaskSpec], Measured]] = {
    "intent": _measure_intent,
    "function_call": _measure_function_call,
    "chat": _measure_chat,
}
