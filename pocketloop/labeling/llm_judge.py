"""A language model as judge of answers."""

from collections.abc import Iterator, Sequence

from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.extract import Candidate, EventFiles
from pocketloop.labeling.judges import UNSURE, Verdict
from pocketloop.labeling.jury import NOT_YET, Jury
from pocketloop.labeling.priority import Queue
from pocketloop.labeling.rows import Row

ENOUGH_RATED = 300
"""Answers on which people have spoken are asked about for the agreement alone: more hardly narrow its interval."""

_NOT_YET = Verdict("unsure", NOT_YET)


class LlmJudge:
    """Judges answers one by one on an endpoint, the most telling ones first (`priority.Queue`).

    What the budget, or a failing endpoint, leaves over is `unsure` with a reason; what was answered is kept, so that
    the next run goes on from there.
    """

    name = "llm"

    def __init__(self, jury: Jury, events: EventFiles, min_rated: int) -> None:
        self.rubric: str = jury.endpoint.rubric.rubric
        self._jury = jury
        self._events = events
        self._queue = Queue(max(min_rated, ENOUGH_RATED))
        self._rated: set[str] = set()
        self._verdicts: dict[str, Verdict] = {}

    @property
    def use(self) -> JudgeUse | None:
        """What was asked."""
        return self._jury.use()

    def see(self, row: Row, rated: bool) -> None:
        """Put the answer in line."""
        self._queue.add(row, row.place, rated)
        if rated:
            self._rated.add(row.key)

    def refer(self, row: Row) -> None:
        """Nothing: the rubric holds the examples that the judge is shown."""

    def settle(self) -> None:
        """Ask about every answer in line.

        Raises:
            ConfigError: the endpoint refuses to be asked at all.
        """
        self._jury.endpoint.run(self._judge, self._in_line())

    def verdicts(self, rows: Sequence[Row]) -> list[Verdict]:
        """The verdicts that were settled."""
        # Where people have spoken, a judge that cannot say anything has nothing to add.
        return [self._verdicts.get(row.key) or (UNSURE if row.key in self._rated else _NOT_YET) for row in rows]

    def _in_line(self) -> Iterator[Candidate]:
        return (self._events.at(place) for place in self._queue)

    async def _judge(self, candidate: Candidate) -> None:
        verdict = await self._jury.judge(candidate.prompt, candidate.answer)
        if verdict.verdict != "unsure" or (verdict.reason != NOT_YET and candidate.event_id not in self._rated):
            self._verdicts[candidate.event_id] = verdict
