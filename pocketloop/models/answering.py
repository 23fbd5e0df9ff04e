"""Asking a generator many things: in portions, with a word on how far it is, and whatever happens to one of them."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pocketloop.contracts.errors import ModelError, PocketloopError
from pocketloop.contracts.events import Conversation
from pocketloop.models.generators import BROKEN_JSON, CRASHED, NOT_ASKED, TIMED_OUT, Generation, Generator, failed

FAILURES_IN_A_ROW = 8
"""Conversations on which the generator itself failed, one after the other, after which it is not asked again."""

_FIRST, _FEWEST, _MOST = 64, 16, 1024
"""Conversations in the first portion, in the smallest, and in the largest."""
_PORTION_S = 10.0
"""How long a portion should take: a generator is given as many conversations as it answers in this time."""


@dataclass(frozen=True)
class Answered:
    """How far it is: answers so far (failed ones included), of how many, in how many seconds; `before` are older."""

    done: int
    total: int
    seconds: float
    failures: int = 0
    before: int = 0

    @property
    def items_per_second(self) -> float:
        """Over what was answered now."""
        return (self.done - self.before) / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Time to the last answer at the speed so far."""
        return (self.total - self.done) / max(self.items_per_second, 1e-9)

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds_left), 60)
        left = f"{minutes}:{seconds:02d} left" if self.done > self.before else "going on"
        lost = f", {self.failures} failed" if self.failures else ""
        return f"{self.done:,} of {self.total:,}, {self.items_per_second:.1f} items/s, {left}{lost}"


OnAnswered = Callable[[Answered], None]
OnPortion = Callable[[Sequence[Generation], float], None]
"""Takes the next answers, in order, and the seconds that they took."""


def answer_all(
    generator: Generator,
    conversations: Sequence[Conversation],
    max_new_tokens: int,
    tools: list[dict[str, Any]] | None = None,
    *,
    on_progress: OnAnswered | None = None,
    on_portion: OnPortion | None = None,
    before: int = 0,
) -> list[Generation]:
    """One `Generation` for each conversation, in order, whatever the generator does.

    Where it raises (a runtime that crashed, a timeout, a reply that is no JSON), its portion is asked again by halves
    until the conversation is found on which it does: that one fails, the others are answered. After
    `FAILURES_IN_A_ROW` of them nothing more is asked, and the rest fails as `NOT_ASKED`.

    Args:
        generator: what answers.
        conversations: what is asked.
        max_new_tokens: the longest answer.
        tools: declared to all.
        on_progress: told after every portion (about ten seconds).
        on_portion: given each portion's answers as soon as they are there.
        before: how many were answered by an earlier run, for `on_progress`.
    """
    asked = _Asked(generator, max_new_tokens, tools)
    answers: list[Generation] = []
    started = time.perf_counter()
    size = _FIRST
    while len(answers) < len(conversations):
        portion = conversations[len(answers) : len(answers) + size]
        begun = time.perf_counter()
        found = asked.answer(portion)
        took = time.perf_counter() - begun
        answers += found
        if on_portion:
            on_portion(found, took)
        if on_progress:
            lost = sum(bool(answer.failure) for answer in answers)
            total = before + len(conversations)
            on_progress(Answered(before + len(answers), total, time.perf_counter() - started, lost, before))
        size = min(max(round(len(portion) * _PORTION_S / max(took, 1e-3)), _FEWEST), _MOST)
    return answers


def count_failures(answers: Sequence[Generation]) -> dict[str, int]:
    """How many answers were not given, by reason, the most frequent first."""
    return dict(Counter(answer.failure for answer in answers if answer.failure).most_common())


class _Asked:
    """A generator, and how often in a row it failed."""

    def __init__(self, generator: Generator, max_new_tokens: int, tools: list[dict[str, Any]] | None) -> None:
        self.generator = generator
        self.max_new_tokens = max_new_tokens
        self.tools = tools
        self.in_a_row = 0

    def answer(self, conversations: Sequence[Conversation]) -> list[Generation]:
        if self.in_a_row >= FAILURES_IN_A_ROW:
            return [failed(NOT_ASKED)] * len(conversations)
        try:
            answers = self.generator.generate(conversations, self.max_new_tokens, self.tools)
            if len(answers) != len(conversations):
                raise ModelError(f"{len(answers)} answers to {len(conversations)} conversations")
        except (ModelError, OSError, RuntimeError, ValueError) as error:
            if len(conversations) == 1:
                self.in_a_row += 1
                # Only our own errors are known not to quote what users said.
                why = str(error) if isinstance(error, PocketloopError) else type(error).__name__
                logging.getLogger(__name__).warning("a conversation was not answered: %s", why)
                return [failed(_reason(error))]
            half = len(conversations) // 2
            return self.answer(conversations[:half]) + self.answer(conversations[half:])
        self.in_a_row = 0
        return answers


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    return BROKEN_JSON if isinstance(error, json.JSONDecodeError) else CRASHED
