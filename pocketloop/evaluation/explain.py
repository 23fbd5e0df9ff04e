"""A verdict, computed again from the outcomes that were kept, and set beside what was recorded."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.reports import GateDecision, GateResult, Measured
from pocketloop.evaluation.evidence import Evidence, changed_evidence, read_evidence
from pocketloop.evaluation.measures import measures

_ROUNDING = {"low": 1e-4, "high": 1e-4}
"""How far numbers may lie apart that two machines computed from the same outcomes; bounds are searched for."""


@dataclass(frozen=True)
class Explanation:
    """`problems` are why the recorded verdict does not stand, one sentence each; none where it does."""

    recorded: GateDecision
    recomputed: GateDecision | None
    problems: list[str] = field(default_factory=list)

    @property
    def stands(self) -> bool:
        """Whether the recorded decision is what its evidence gives."""
        return not self.problems


def explain(folder: Path) -> Explanation:
    """Decide anew on a bundle's own evidence, and compare.

    Raises:
        DataError: there is no decision to be explained.
    """
    recorded = _recorded(folder / "gates.json")
    if not recorded.evidence:
        return Explanation(recorded, None, ["its outcomes were not kept: nothing can be recomputed"])
    changed = changed_evidence(folder, recorded)
    problems = [f"{name} is not what the verdict was made from: it was changed, added or removed" for name in changed]
    try:
        evidence = read_evidence(folder)
        recomputed = evidence.decision()
    except DataError as error:
        return Explanation(recorded, None, [*problems, str(error)])
    return Explanation(
        recorded, recomputed, [*problems, *_metrics_differ(evidence), *differences(recorded, recomputed)]
    )


def _metrics_differ(evidence: Evidence) -> list[str]:
    """Where the reported metrics are not what the outcomes give."""
    found = []
    for result in evidence.evaluation.results:
        outcomes = evidence.outcomes.get(result.set, {}).get(result.model, ())
        computed = measures(outcomes, evidence.recipe.task) if outcomes else {}
        for name, reported in result.metrics.items():
            now = computed.get(name)
            if now is None or now.n != reported.n or not _close(reported.value, now.value):
                says = "nothing" if now is None else f"{now.value:.4f} on {now.n:,}"
                found.append(
                    f"{name} of {result.model} on {result.set}: the outcomes give {says}, reported is "
                    f"{reported.value:.4f} on {reported.n:,}"
                )
    return found


def differences(recorded: GateDecision, recomputed: GateDecision) -> list[str]:
    """Where two decisions differ, in sentences; numbers count as equal up to rounding."""
    found = []
    if recorded.verdict != recomputed.verdict:
        found.append(f"the verdict is {recomputed.verdict}, recorded is {recorded.verdict}")
    ours, theirs = ({gate.gate: gate for gate in one.gates} for one in (recorded, recomputed))
    found += [f"{name}: no such gate follows from the recipe and the reports" for name in ours if name not in theirs]
    found += [f"{name}: {gate.verdict}, and it was not recorded" for name, gate in theirs.items() if name not in ours]
    for name, gate in ours.items():
        found += [f"{name}: {said}" for said in _gate_differs(gate, theirs.get(name, gate))]
    return found


def _gate_differs(recorded: GateResult, recomputed: GateResult) -> list[str]:
    found = []
    if recorded.verdict != recomputed.verdict:
        found.append(f"it is {recomputed.verdict}, recorded is {recorded.verdict}")
    if recorded.n != recomputed.n:
        found.append(f"it rests on {recomputed.n:,} items, recorded are {recorded.n:,}")
    if not _close(recorded.observed, recomputed.observed):
        found.append(f"it observes {recomputed.observed}, recorded is {recorded.observed}")
    found += _measured_differs(recorded.measured, recomputed.measured)
    slices = {one.name: one for one in recomputed.slices}
    if {one.name for one in recorded.slices} != set(slices):
        found.append("it is of other slices")
        return found
    for one in recorded.slices:
        if one.verdict != slices[one.name].verdict:
            found.append(f"{one.name} is {slices[one.name].verdict}, recorded is {one.verdict}")
        found += [f"{one.name}: {said}" for said in _measured_differs(one.measured, slices[one.name].measured)]
    return found


def _measured_differs(recorded: Measured | None, recomputed: Measured | None) -> list[str]:
    if recorded is None or recomputed is None:
        return [] if recorded is recomputed else ["what its test found was not recorded, or should not be there"]
    before, now = recorded.model_dump(), recomputed.model_dump()
    differ = [key for key in before if not _close(before[key], now[key], _ROUNDING.get(key, 1e-9))]
    return [f"{key} is {now[key]}, recorded is {before[key]}" for key in differ]


def _close(before: float | None, now: float | None, rounding: float = 1e-9) -> bool:
    if before is None or now is None:
        return before is now
    return math.isclose(before, now, rel_tol=1e-6, abs_tol=rounding)


def _recorded(path: Path) -> GateDecision:
    try:
        return GateDecision.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path.parent}: no gates.json there, so no decision to explain") from None
    except ValidationError:
        raise DataError(f"{path}: no decision that can be read") from None
