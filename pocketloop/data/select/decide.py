"""Which examples stay: one guard after the other over the table of keys, in this process, with numpy."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.recipe import SelectConfig
from pocketloop.contracts.reports import Guarded
from pocketloop.data.select.guards import Guard, Past, dominated, flipped
from pocketloop.data.select.near import redundant
from pocketloop.data.select.table import Mask, Table, beyond

KEPT = "kept"
EXACT = "duplicate conversation"
NEAR = "near duplicate"
DEVICE = "cap per device"
TEMPLATE = "cap per template"
BALANCE = "balance"


@dataclass
class Decisions:
    """For each row the place of its reason in `reasons`; 0 is kept."""

    reasons: list[str]
    code: npt.NDArray[np.uint8]
    guarded: list[Guarded] = field(default_factory=list)
    suspects: set[tuple[int, str]] = field(default_factory=set)
    """Device and label of what the guards left out: feedback on the same label is not to be trusted either."""

    @property
    def alive(self) -> Mask:
        """Rows that nothing has left out so far."""
        return self.code == 0

    def leave_out(self, rows: Mask | npt.NDArray[np.int64], reason: str) -> None:
        """Note the reason for those of `rows` that have none yet."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        wanted = np.zeros(len(self.code), dtype=bool)
        wanted[rows] = True
        self.code[wanted & self.alive] = self.reasons.index(reason)

    def counts(self) -> dict[str, int]:
        """Rows by reason, those kept included."""
        found = np.bincount(self.code, minlength=len(self.reasons)).tolist()
        return dict(zip(self.reasons, found, strict=True))


def decide(table: Table, config: SelectConfig, previous: Path | None) -> Decisions:
    """Go through duplicates, decontamination, caps, guards and balance; the first reason counts.

    Raises:
        DataError: a guard against poisoning spoke, and `on_poison` is `stop`.
    """
    found = Decisions([KEPT], np.zeros(table.rows, dtype=np.uint8))
    found.leave_out(_repeated(table.conversation, table, found.alive), EXACT)
    if config.near_duplicates is not None:
        found.leave_out(_repeated(table.twin, table, found.alive), NEAR)
        _near(table, found, config.near_duplicates)
    for at, name in enumerate(table.sets):
        found.leave_out(table.contaminated == at, f"stands in evaluation set {name}")
    if config.per_device is not None:
        alive = np.flatnonzero(found.alive & (table.device != 0))
        found.leave_out(alive[beyond(table.device[alive], table.precedence[alive], config.per_device)], DEVICE)
    if config.per_template is not None:
        alive = np.flatnonzero(found.alive)
        found.leave_out(alive[beyond(table.template[alive], table.precedence[alive], config.per_template)], TEMPLATE)
    _guard(table, found, config, previous)
    if config.balance is not None:
        _balance(table, found, config.balance)
    return found


def _repeated(keys: npt.NDArray[np.uint64], table: Table, alive: Mask) -> npt.NDArray[np.int64]:
    rows = np.flatnonzero(alive)
    repeated: npt.NDArray[np.int64] = rows[beyond(keys[rows], table.position[rows], 1)]
    return repeated


def _near(table: Table, found: Decisions, bound: float) -> None:
    candidates = np.flatnonzero(found.alive)
    hashes = table.bands()
    rows = redundant(candidates, table.position, lambda band: hashes[:, band], table.signed(), table.documents, bound)
    found.leave_out(rows, NEAR)


def _guard(table: Table, found: Decisions, config: SelectConfig, previous: Path | None) -> None:
    guards: list[Guard] = []
    if config.dominance is not None:
        guards += dominated(table, found.alive, config.dominance)
    if config.flip is not None and previous is not None:
        guards += flipped(table, found.alive, Past.of(previous), config.flip)
    if guards and config.on_poison == "stop":
        seen = "; ".join(
            f"{g.report.guard} on `{g.report.label}` {g.report.value:.2f} of at most {g.report.bound:.2f} "
            f"({g.report.examples} examples of {g.report.devices} devices)"
            for g in guards
        )
        raise DataError(
            f"the data looks poisoned: {seen}. Look at these devices' events, then set select.on_poison to drop, "
            "or raise the bound knowingly"
        )
    for guard in guards:
        found.leave_out(guard.rows, f"guard: {guard.report.guard}")
        found.guarded.append(guard.report)
        found.suspects |= {(int(table.device[row]), table.labels[table.label[row]]) for row in guard.rows}


def _balance(table: Table, found: Decisions, times: float) -> None:
    rows = np.flatnonzero(found.alive)
    counts = np.bincount(table.label[rows])
    most = int(np.ceil(times * np.median(counts[counts > 0]))) if len(rows) else 0
    labels = table.label[rows].astype(np.uint64)
    found.leave_out(rows[beyond(labels, table.precedence[rows], most)], BALANCE)
