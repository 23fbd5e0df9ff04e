"""Slices of a set: how a model does for one locale, one length, one intent or tool, for new and for old users."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pocketloop.contracts.reports import Estimate, SliceResult, wilson
from pocketloop.evaluation.statistics import estimate

if TYPE_CHECKING:
    from pocketloop.evaluation.suite import Outcome

SMALLEST = 20
"""Items below which a slice says too little to be looked at alone."""
OTHER = "(other)"
"""Stands for all slices of a dimension that are too small."""


def members(outcomes: Sequence["Outcome"]) -> dict[tuple[str, str], list[int]]:
    """Places of each slice's items by (dimension, value), in the order of their names.

    Slices of fewer than `SMALLEST` items are pooled under `OTHER`, so that no item is lost; a dimension that then has
    one slice only is the set itself and left out.
    """
    by_dimension: dict[str, dict[str, list[int]]] = {}
    for place, outcome in enumerate(outcomes):
        for dimension, value in outcome.slices.items():
            by_dimension.setdefault(dimension, {}).setdefault(value, []).append(place)
    found: dict[tuple[str, str], list[int]] = {}
    for dimension, values in sorted(by_dimension.items()):
        large = {value: places for value, places in sorted(values.items()) if len(places) >= SMALLEST}
        small = sorted(place for value, places in values.items() if value not in large for place in places)
        if small:
            large[OTHER] = small
        if len(large) > 1:
            found |= {(dimension, value): places for value, places in large.items()}
    return found


def slice_results(outcomes: Sequence["Outcome"], model: str, set_name: str, metric: str) -> list[SliceResult]:
    """Every slice of one model on one set, the worst first; items to which the metric does not apply are left out."""
    scored = [outcome for outcome in outcomes if metric in outcome.scores]
    slices = members(scored)
    found = [
        SliceResult(
            model=model,
            set=set_name,
            metric=metric,
            dimension=dimension,
            value=value,
            estimate=(alone := estimate(values := [scored[place].scores[metric] for place in places])),
            joint=_joint(alone, values, len(slices)),
            family=len(slices),
        )
        for (dimension, value), places in slices.items()
    ]
    return sorted(found, key=lambda one: (one.estimate.value, -one.estimate.n, one.name))


def _joint(alone: Estimate, values: Sequence[float], family: int) -> tuple[float, float]:
    """The interval that holds with those of `family` slices together, each at 1 - 0.05 / family (Bonferroni).

    Wilson's, taken as for a proportion where scores lie between 0 and 1: no score in [0, 1] varies more than that.
    """
    low, high = wilson(sum(values), len(values), 1 - 0.05 / family)
    return min(low, alone.low), max(high, alone.high)


def describe(worst: SliceResult) -> str:
    """One sentence about a worst slice: what it is, on how many items, how sure, and out of how many."""
    low, high = worst.joint
    return (
        f"{worst.name}: {worst.metric} {worst.estimate.value:.3f} on {worst.estimate.n:,} items, the worst of "
        f"{worst.family} slices (an interval for all of them together: {low:.3f} to {high:.3f})"
    )
