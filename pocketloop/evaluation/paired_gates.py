"""Gates that compare the candidate with another model on the same items."""

import math
from collections.abc import Sequence

from pocketloop.contracts.recipe import Gate
from pocketloop.contracts.reports import GateResult, Measured
from pocketloop.evaluation.statistics import (
    Comparison,
    chance_to_pass,
    chance_to_win,
    mcnemar_exact,
    noninferior,
    pairs_needed,
    superior,
    wins_needed,
)
from pocketloop.evaluation.suite import Outcome, Outcomes
from pocketloop.models.generators import UNHEARD

Paired = tuple[list[float], list[float]]
"""Scores of the candidate and of the other model, item by item."""


def gate_name(gate: Gate) -> str:
    """What a gate is called in reports, cards and tags."""
    if gate.min is not None:
        name = f"{gate.metric} ≥ {gate.min:g}"
    elif gate.noninferior_to:
        name = f"{gate.metric} not more than {gate.allowance:g} below {gate.against}"
    elif gate.allowance:
        name = f"{gate.metric} more than {gate.allowance:g} above {gate.against}"
    else:
        name = f"{gate.metric} above {gate.against}"
    return name + (f" in each {' and '.join(gate.slices)}" if gate.slices else "")


def no_champion(gate: Gate) -> GateResult:
    """Nothing to compare with yet: a pass, and it says so."""
    return GateResult(
        gate=gate_name(gate), verdict="pass", observed=None, n=0, detail="no champion yet", against="champion"
    )


def unmeasured(gate: str, why: str) -> GateResult:
    """What was not measured fails."""
    return GateResult(gate=gate, verdict="fail", observed=None, n=0, detail=why)


def compared_gate(gate: Gate, outcomes: Outcomes, *, against: str = "", name: str = "") -> GateResult:
    """Judge a comparison over all items; `against` another model, or called otherwise, than the gate says."""
    against, name = against or gate.against, name or gate_name(gate)
    paired = paired_scores(gate.metric, outcomes, against)
    if isinstance(paired, str):
        return unmeasured(name, paired).model_copy(update={"against": against})
    found = compare(gate, paired)
    return GateResult(
        gate=name,
        verdict=found.verdict,
        observed=found.difference,
        n=found.n,
        detail=_describe(gate, found),
        against=against,
        test=found.test,
        bound=boundary(gate),
        confidence=gate.confidence,
        measured=measured(found),
        change=_change(gate, found),
    )


def compare(gate: Gate, paired: Paired) -> Comparison:
    """The gate's test on paired scores."""
    test = noninferior if gate.noninferior_to else superior
    return test(*paired, margin=gate.allowance, confidence=gate.confidence)


def boundary(gate: Gate) -> float:
    """The difference that the gate's test holds the candidate against."""
    return -gate.allowance if gate.noninferior_to else gate.allowance


def measured(found: Comparison) -> Measured:
    """What a comparison found, as reports keep it."""
    return Measured(
        n=found.n,
        observed=found.difference,
        low=found.low,
        high=found.high,
        wins=found.wins,
        losses=found.losses,
        p=found.p,
        p_against=found.p_against,
    )


def paired_scores(metric: str, outcomes: Outcomes, other: str) -> Paired | str:
    """Scores of the adapter and of `other` on the same items, or what is wrong with them."""
    found = paired_items(metric, outcomes.get("adapter", ()), outcomes.get(other, ()), other)
    return found if isinstance(found, str) else independent(metric, found)


def paired_items(
    metric: str, ours: Sequence[Outcome], theirs: Sequence[Outcome], other: str
) -> list[tuple[Outcome, Outcome]] | str:
    """Outcomes of the same items to which the metric applies, or what is wrong with them."""
    if not ours or not theirs:
        return f"there are no outcomes of {'the adapter' if theirs else other}"
    if [outcome.example_id for outcome in ours] != [outcome.example_id for outcome in theirs]:
        return f"the adapter and {other} were not measured on the same items"
    pairs = list(zip(ours, theirs, strict=True))
    if any((metric in mine.scores) != (metric in other_one.scores) for mine, other_one in pairs):
        return f"{metric} was not measured for every item of both"
    applies = [pair for pair in pairs if metric in pair[0].scores]
    return applies or f"{metric} was not measured for any item"


def independent(metric: str, pairs: Sequence[tuple[Outcome, Outcome]]) -> Paired:
    """Scores of independent items: the turns of one dialogue hang together, and count as their mean.

    Where what ran the other model failed, its answer counts as right: nobody is better than an answer that nobody
    heard.
    """
    together: dict[str, list[tuple[float, float]]] = {}
    for number, (mine, other) in enumerate(pairs):
        key = f"dialogue {mine.dialogue}" if mine.dialogue else f"item {number}"
        theirs_here = 1.0 if other.failure in UNHEARD else other.scores[metric]
        together.setdefault(key, []).append((mine.scores[metric], theirs_here))
    ours = [sum(mine for mine, _ in turns) / len(turns) for turns in together.values()]
    theirs = [sum(other for _, other in turns) / len(turns) for turns in together.values()]
    return ours, theirs


def _describe(gate: Gate, found: Comparison) -> str:
    said = (
        f"difference {found.difference:+.3f}, one-sided {100 * gate.confidence:g} % bounds {found.low:+.3f} and "
        f"{found.high:+.3f}; better on {found.wins:,} and worse on {found.losses:,} of {found.n:,} items; "
        f"{found.test} p = {found.p:.2g}"
    )
    worse = mcnemar_exact(found.wins, found.losses, "greater")
    if gate.noninferior_to and found.verdict == "pass" and worse < 1 - gate.confidence:
        said += f"; it is worse, by less than the margin (exact McNemar p = {worse:.2g})"
    return said


def _change(gate: Gate, found: Comparison) -> str:
    """What would change the verdict: a larger set, or other answers to about so many items."""
    if found.verdict == "pass":
        items = math.ceil((found.low - boundary(gate)) * found.n)
        return f"a pass until about {max(items, 1):,} of {found.n:,} answers get worse"
    if found.verdict == "fail":
        short = boundary(gate) - found.high if found.high < boundary(gate) else boundary(gate) - found.difference
        return f"no fail any more with about {max(math.ceil(short * found.n), 1):,} of {found.n:,} answers better"
    share = max(found.discordant, 1) / found.n
    if gate.noninferior_to:
        chance = chance_to_pass(found.n, share, gate.allowance, gate.confidence)
        needed = pairs_needed(share, gate.allowance, gate.confidence)
        return f"an equal candidate passes {chance:.0%} of the time here, 80 % with {needed:,} items"
    if found.difference <= gate.allowance:
        return "a better candidate: this one is ahead by less than the margin asks"
    chance = chance_to_win(found.n, found.difference, share, gate.allowance, gate.confidence)
    needed = wins_needed(found.difference, share, gate.allowance, gate.confidence)
    return f"one ahead by {found.difference:+.3f} passes {chance:.0%} of the time here, 80 % with {needed:,} items"
