"""The programmatic judge: does the rest of the data agree with the answer's label or function?"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pocketloop.contracts.labels import RIGHT_ANSWER
from pocketloop.contracts.names import Task
from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.consistency import Consistency, Labelled
from pocketloop.labeling.judges import RIGHT, UNSURE, Verdict
from pocketloop.labeling.rows import Row

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DOUBTED = "other data speaks against it"


class Verifier:
    """Judges labels and functions by what the same words mean elsewhere.

    A chat whose form is sound stays `unsure`: form says nothing about whether it helped.
    """

    name = "verifier"
    rubric = RIGHT_ANSWER
    use: JudgeUse | None = None

    def __init__(self, task: Task, counts: "Callable[[int], csr_matrix]") -> None:
        """`counts` reads a shard's counts of words (`rows.Rows.counts`)."""
        self._task = task
        self._consistency = Consistency(counts)

    def see(self, row: Row, rated: bool) -> None:
        """Take the answer into account."""
        if self._task != "chat":
            self._consistency.see(_labelled(row))

    def refer(self, row: Row) -> None:
        """Take a labelled example into account: it helps to tell labels apart."""
        self.see(row, rated=False)

    def settle(self) -> None:
        """Learn what labels usually stand for."""
        self._consistency.settle()

    def verdicts(self, rows: Sequence[Row]) -> list[Verdict]:
        """`wrong` where other data speaks against the answer, `unsure` where there is too little of it."""
        if self._task == "chat":
            return [UNSURE] * len(rows)
        told = {"agrees": RIGHT, "doubts": Verdict("wrong", DOUBTED), "cannot tell": UNSURE}
        return [told[opinion] for opinion in self._consistency.opinions([_labelled(row) for row in rows])]


def _labelled(row: Row) -> Labelled:
    return Labelled(row.key, row.shard, row.number, row.label, row.group)
