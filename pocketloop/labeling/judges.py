"""What every judge of answers offers, whatever stands behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.rows import Row


@dataclass(frozen=True)
class Verdict:
    """A judge's word on one answer.

    `unsure` without a reason leaves the answer to what people say of it; with one, the judge was asked and could not
    settle it (or was not asked yet), and the answer is not learned from unless its user liked it.
    """

    verdict: Literal["right", "wrong", "unsure"]
    reason: str = ""


UNSURE = Verdict("unsure")
RIGHT = Verdict("right")


class Judge(Protocol):
    """Judges answers of sound form in two passes, so that it may look at all of them before it judges the first.

    What people said of an answer is never looked at, only whether they did: else agreement would mean nothing.
    """

    name: str
    rubric: str
    """The question that it answers, by its name."""

    @property
    def use(self) -> JudgeUse | None:
        """What asking it took, for a judge that is asked over the network."""
        ...

    def see(self, row: Row, rated: bool) -> None:
        """First pass, over all answers; `rated` when people have spoken on it."""
        ...

    def refer(self, row: Row) -> None:
        """First pass, after the answers: an example that people labelled."""
        ...

    def settle(self) -> None:
        """Between the passes."""
        ...

    def verdicts(self, rows: Sequence[Row]) -> list[Verdict]:
        """Second pass, over any number of answers that were seen, shard by shard."""
        ...
