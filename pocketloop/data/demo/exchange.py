"""One question and its right answer in a made-up assistant, with what a program can verify of any right answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Check, Example, make_example
from pocketloop.contracts.names import Task
from pocketloop.data.demo._random import Split
from pocketloop.data.demo.grammar import choose


@dataclass(frozen=True)
class Exchange:
    """A user's message and the answer; `system` is what the app would say before it."""

    said: str
    answer: str
    checks: list[Check] = field(default_factory=list)
    system: str = ""
    task: Task = "chat"

    def example(self, source: str) -> Example:
        """The exchange as an example."""
        system = [Message(role="system", content=self.system)] if self.system else []
        turns = [Message(role="user", content=self.said), Message(role="assistant", content=self.answer)]
        return make_example(self.task, [*system, *turns], source=source, checks=self.checks)


@cache
def part(values: str, split: Split) -> tuple[str, ...]:
    """Those of `a; b; c` that belong to `split`: every fourth is kept for evaluation."""
    entries = [entry.strip() for entry in values.split(";")]
    return tuple(entry for at, entry in enumerate(entries) if (at % 4 == 3) == (split == "heldout"))


def say(rng: Random, templates: Sequence[str], **values: object) -> str:
    """One of the templates, filled; in three of ten as people type: no capital, no full stop."""
    text = choose(rng.choice(templates), rng).format(**values)
    if rng.random() < 0.3:
        return text[0].lower() + text[1:].rstrip("?.!")
    return text[0].upper() + text[1:]
