"""The verdict on a candidate: the recipe's own gates, and those that no recipe can leave out.

An absolute floor asks three questions in this order:

1. Does the whole 95 % interval lie below the floor? Then the candidate fails, however small the set.
2. Is the interval wider than 5 points either way? Then the set is too small to say, and the gate is inconclusive.
3. Does the measured value reach the floor? Then the gate passes, otherwise it fails. The detail says whether the
   interval's lower end clears the floor as well.

Comparisons with a champion or the base are in `paired_gates`, gates on slices in `slice_gates`.

Always added: the adapter beats the base without it on the task's main metric (paired, one-sided, 95 %); the exported
files score no worse on it than the trained adapter in transformers (`export.parity.max_score_loss`); parity of the
exported files; every bounded safety check; and the budget of the phone. What was not measured fails.
"""

from collections.abc import Sequence

from pocketloop.contracts.exports import BudgetMeasure, BudgetReport
from pocketloop.contracts.metrics import AGAINST_CHAMPION
from pocketloop.contracts.recipe import Gate, Recipe
from pocketloop.contracts.reports import (
    Estimate,
    EvaluationReport,
    GateDecision,
    GateResult,
    Measured,
    ParityReport,
    SafetyReport,
    SetUse,
    Verdict,
    worst,
)
from pocketloop.evaluation.paired_gates import compared_gate, no_champion, unmeasured
from pocketloop.evaluation.slice_gates import slices_gate
from pocketloop.evaluation.spent import spent_warnings
from pocketloop.evaluation.statistics import items_for_width
from pocketloop.evaluation.suite import Outcomes
from pocketloop.tasks.tasks import TaskSpec

MAX_HALF_WIDTH = 0.05
_MEGABYTE = 1_000_000


def decide(
    recipe: Recipe,
    evaluation: EvaluationReport,
    outcomes: Outcomes,
    parity: ParityReport | None,
    safety: SafetyReport | None,
    budget: BudgetReport | None,
    uses: Sequence[SetUse] = (),
) -> GateDecision:
    """Judge the candidate that `evaluation` calls `adapter`; fail outranks inconclusive outranks pass.

    `outcomes` are those of the first evaluation set; `budget` is what the exported files cost a phone; `uses` says how
    often each set has decided before. Where neither `evaluation` nor `outcomes` knows a `champion`, the gates against
    one pass and say that there is none yet. The same arguments give the same decision on every machine.
    """
    gates = [_recipe_gate(f"gates.{at}", gate, evaluation, outcomes) for at, gate in enumerate(recipe.gates)]
    metric = TaskSpec.of(recipe, None).metrics[0]
    gates.append(_beats_base(metric, outcomes))
    gates.append(_keeps_score(metric, recipe.export.parity.max_score_loss, outcomes))
    gates.append(_parity(parity))
    gates.extend(_safety(safety))
    gates.append(_budget(budget))
    return GateDecision(
        verdict=worst(gate.verdict for gate in gates), gates=gates, warnings=spent_warnings(recipe, evaluation, uses)
    )


def _recipe_gate(key: str, gate: Gate, evaluation: EvaluationReport, outcomes: Outcomes) -> GateResult:
    compared = gate.against == "champion" or gate.metric in AGAINST_CHAMPION
    if compared and "champion" not in outcomes and evaluation.result("champion") is None:
        return no_champion(gate).model_copy(update={"key": key})
    if gate.slices:
        found = slices_gate(gate, outcomes)
    elif gate.min is not None:
        adapter = evaluation.result("adapter")
        found = _floor(gate.metric, gate.min, adapter.metrics.get(gate.metric) if adapter else None)
    else:
        found = compared_gate(gate, outcomes)
    return found.model_copy(update={"key": key})


def _floor(metric: str, floor: float, measured: Estimate | None) -> GateResult:
    name = f"{metric} ≥ {floor:g}"
    if measured is None or measured.n == 0:
        return unmeasured(name, f"{metric} was not measured on the first evaluation set")
    half_width = (measured.high - measured.low) / 2
    verdict: Verdict
    if measured.high < floor:
        verdict, why = "fail", "the whole interval lies below the floor"
    elif half_width > MAX_HALF_WIDTH:
        verdict, why = "inconclusive", f"too few items: ± {half_width:.3f} is wider than ± {MAX_HALF_WIDTH:g}"
    elif measured.value >= floor:
        verdict = "pass"
        why = "its lower end clears the floor too" if measured.low >= floor else "its lower end is below the floor"
    else:
        verdict, why = "fail", "below the floor"
    return GateResult(
        gate=name,
        verdict=verdict,
        observed=measured.value,
        n=measured.n,
        detail=f"95 % interval {measured.low:.3f} to {measured.high:.3f}; {why}",
        test="floor",
        bound=floor,
        confidence=0.95,
        measured=Measured(n=measured.n, observed=measured.value, low=measured.low, high=measured.high),
        change=_change_of_floor(measured, floor, verdict),
    )


def _change_of_floor(measured: Estimate, floor: float, verdict: Verdict) -> str:
    if verdict == "inconclusive":
        needed = items_for_width(measured.value, MAX_HALF_WIDTH)
        return f"about {needed:,} items would make the interval narrow enough to say"
    items = abs(measured.value - floor) * measured.n
    return f"a pass until {items:.0f} more of the items are wrong" if verdict == "pass" else f"{items:.0f} more right"


def _beats_base(metric: str, outcomes: Outcomes) -> GateResult:
    """The adapter must be better than nothing: superiority to the base by any margin."""
    name = f"{metric} above base without adapter"
    return compared_gate(Gate(metric=metric, superior_to="base"), outcomes, name=name)


def _keeps_score(metric: str, margin: float, outcomes: Outcomes) -> GateResult:
    """The exported files against the adapter as it was trained, on the items that transformers answered, too."""
    name = f"{metric} of the exported files not more than {margin:g} below transformers"
    asked = {outcome.example_id for outcome in outcomes.get("transformers", ())}
    exported = [outcome for outcome in outcomes.get("adapter", ()) if outcome.example_id in asked]
    gate = Gate(metric=metric, noninferior_to="base", margin=margin)
    return compared_gate(gate, {**outcomes, "adapter": exported}, against="transformers", name=name)


def _parity(parity: ParityReport | None) -> GateResult:
    name = "parity of the exported files"
    if parity is None or not parity.results:
        return unmeasured(name, "parity was not measured")
    worst = min(parity.results, key=lambda result: result.top1)
    failed = [result.name for result in parity.results if not result.passed]
    detail = (
        f"best token agrees at least {worst.top1:.3f} ({worst.name}); adapter's effect {parity.adapter_effect:.3g} nats"
    )
    return GateResult(
        gate=name,
        verdict="pass" if parity.passed and not failed else "fail",
        observed=worst.top1,
        n=sum(result.tokens for result in parity.results),
        detail=detail + (f"; out of bounds: {', '.join(failed)}" if failed else ""),
    )


def _safety(safety: SafetyReport | None) -> list[GateResult]:
    if safety is None or not safety.checks:
        return [unmeasured("safety", "no safety check was made")]
    gates = [
        GateResult(
            gate=f"safety: {check.name}",
            verdict="pass" if check.passed and check.n else "inconclusive" if check.undecided else "fail",
            observed=check.value,
            n=check.n,
            test="bound",
            bound=check.bound,
            detail="; ".join(filter(None, [f"bound {check.bound:g}", check.detail, "" if check.n else "no items"])),
        )
        for check in safety.checks
        if check.bound is not None
    ]
    if gates and (safety.passed or any(gate.verdict != "pass" for gate in gates)):
        return gates
    return [
        *gates,
        GateResult(
            gate="safety",
            verdict="pass" if safety.passed else "fail",
            observed=None,
            n=len(safety.checks),
            detail=f"{len(safety.checks)} checks, {len(gates)} of them with a bound",
        ),
    ]


def _budget(budget: BudgetReport | None) -> GateResult:
    name = "budget of the phone"
    if budget is None:
        return unmeasured(name, "nothing was weighed or run")
    held = [
        f"{found.format} {_skill(found)} MB, "
        f"{found.resident_bytes / _MEGABYTE:,.0f} MB held at {found.context:,} tokens"
        for found in budget.measures
    ]
    remedies = [f"would fit with --set {change.replace(' ', ' --set ')}" for change in budget.would_fit]
    if budget.exceeded and not remedies:
        remedies = ["no change of the recipe that is known here would fit: take a smaller base"]
    return GateResult(
        gate=name,
        verdict="pass" if budget.passed else "fail",
        observed=max(found.resident_bytes for found in budget.measures) / _MEGABYTE,
        n=len(budget.measures),
        detail="; ".join([*budget.exceeded, *remedies] if budget.exceeded else held),
    )


def _skill(found: BudgetMeasure) -> str:
    size = found.base_bytes if found.merged else found.adapter_bytes
    return f"{'merged model' if found.merged else 'adapter'} {size / _MEGABYTE:.2f}"
