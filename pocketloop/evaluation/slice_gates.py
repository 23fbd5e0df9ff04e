"""Gates on each slice of a set: a candidate that lost one locale only does not hide in the mean.

A fail needs proof, and with many slices something looks bad by chance: each slice's p-value for being bad is corrected
by Holm over all slices of the gate. A pass needs every slice (of enough items) to pass by itself, so nothing has to be
corrected there: the more slices, the harder it becomes. What is neither is inconclusive.
"""

from collections.abc import Sequence

from pocketloop.contracts.recipe import Gate
from pocketloop.contracts.reports import GateResult, Measured, SliceVerdict, Verdict, worst
from pocketloop.evaluation.paired_gates import (
    boundary,
    compare,
    gate_name,
    independent,
    measured,
    paired_items,
    unmeasured,
)
from pocketloop.evaluation.slices import members
from pocketloop.evaluation.statistics import below, estimate, holm
from pocketloop.evaluation.suite import Outcome, Outcomes

ALL = "all"
"""Stands for every dimension that the set's items have."""
_SHOWN = 3

Pairs = Sequence[tuple[Outcome, Outcome]]


def slices_gate(gate: Gate, outcomes: Outcomes) -> GateResult:
    """Judge a gate that has `slices`."""
    name, ours = gate_name(gate), outcomes.get("adapter", ())
    found = paired_items(gate.metric, ours, outcomes.get(gate.against, ()) if gate.against else ours, gate.against)
    if isinstance(found, str):
        return unmeasured(name, found).model_copy(update={"against": gate.against})
    slices = slices_of(found, gate.slices)
    if not slices:
        known = sorted({dimension for dimension, _ in members([mine for mine, _ in found])})
        said = f"the first evaluation set has no two slices by {' or '.join(gate.slices)}"
        return unmeasured(name, f"{said}; it has them by {', '.join(known) or 'nothing'}")
    judged = [
        _floor_of(gate, members) if gate.min is not None else _pair_of(gate, members) for members in slices.values()
    ]
    corrected = holm([result.p_against or 0.0 for result, _ in judged])
    verdicts = []
    for slice_name, (result, passed), p_against in zip(slices, judged, corrected, strict=True):
        verdict: Verdict = "fail" if p_against < 1 - gate.confidence else "pass" if passed else "inconclusive"
        verdicts.append(
            SliceVerdict(
                name=slice_name,
                verdict=verdict,
                measured=result.model_copy(update={"p_against": p_against}),
                small=result.n < gate.min_items,
            )
        )
    verdicts.sort(key=lambda one: (one.measured.observed, one.name))
    return _result(gate, name, verdicts)


def slices_of(pairs: Pairs, dimensions: Sequence[str]) -> dict[str, Pairs]:
    """The items of each slice of these dimensions, by the slice's name (`locale=de-DE`)."""
    found = members([mine for mine, _ in pairs])
    return {
        f"{dimension}={value}": [pairs[place] for place in places]
        for (dimension, value), places in found.items()
        if ALL in dimensions or dimension in dimensions
    }


def _pair_of(gate: Gate, pairs: Pairs) -> tuple[Measured, bool]:
    found = compare(gate, independent(gate.metric, pairs))
    return measured(found), found.verdict == "pass"


def _floor_of(gate: Gate, pairs: Pairs) -> tuple[Measured, bool]:
    assert gate.min is not None
    scores, _ = independent(gate.metric, pairs)
    found = estimate(scores)
    result = Measured(
        n=found.n, observed=found.value, low=found.low, high=found.high, p_against=below(scores, gate.min)
    )
    return result, found.value >= gate.min


def _result(gate: Gate, name: str, slices: list[SliceVerdict]) -> GateResult:
    waited_for = [one.verdict for one in slices if not one.small or one.verdict == "fail"]
    verdict: Verdict = worst(waited_for) if waited_for else "inconclusive"
    bad = [one for one in slices if one.verdict == "fail"] or [one for one in slices if one.verdict != "pass"]
    said = [f"{len(slices)} slices, worst {_say(slices[0])}"]
    if bad:
        kind = "fail" if bad[0].verdict == "fail" else "cannot be told"
        said.append(f"{len(bad)} {kind}: " + ", ".join(_say(one) for one in bad[:_SHOWN]))
    small = [one for one in slices if one.small]
    if small:
        said.append(f"{len(small)} of fewer than {gate.min_items} items can fail the gate, and are not waited for")
    undecided = [one for one in slices if one.verdict == "inconclusive" and not one.small]
    change = f"more items of {', '.join(one.name for one in undecided[:_SHOWN])}" if undecided else ""
    return GateResult(
        gate=name,
        verdict=verdict,
        observed=slices[0].measured.observed,
        n=_items(slices),
        detail="; ".join(said),
        against=gate.against,
        test="Holm over slices: " + ("exact binomial" if gate.min is not None else "paired"),
        bound=gate.min if gate.min is not None else boundary(gate),
        confidence=gate.confidence,
        measured=slices[0].measured,
        slices=slices,
        change=change or ("other answers in " + ", ".join(one.name for one in bad[:_SHOWN]) if bad else ""),
    )


def _items(slices: Sequence[SliceVerdict]) -> int:
    """Items of the dimension that covers the most."""
    covered: dict[str, int] = {}
    for one in slices:
        dimension = one.name.split("=", 1)[0]
        covered[dimension] = covered.get(dimension, 0) + one.measured.n
    return max(covered.values())


def _say(one: SliceVerdict) -> str:
    found = one.measured
    return f"{one.name} {found.observed:+.3f} on {found.n:,} (corrected p = {found.p_against or 0:.2g})"
