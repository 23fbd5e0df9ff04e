"""Intervals of what memory is measured by, and what follows where there is a bound."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pocketloop.contracts.reports import wilson

if TYPE_CHECKING:
    import numpy

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float], least: float, most: float) -> tuple[float, float]:
    """Student's 95 % interval of a mean whose values lie between `least` and `most`; one value says nothing."""
    import numpy as np
    from scipy import stats

    if len(values) < 2:
        return least, most
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return max(least, mean - half), min(most, mean + half)


@dataclass(frozen=True)
class Auc:
    """The area under an ROC curve and its 95 % interval."""

    value: float
    interval: tuple[float, float]


def auc(
    positives: Sequence[float],
    negatives: Sequence[float],
    positive_groups: Sequence[Hashable] | None = None,
    negative_groups: Sequence[Hashable] | None = None,
) -> Auc:
    """How often a positive scores higher than a negative, ties counting half, with DeLong's interval.

    The variance is that of DeLong et al., "Comparing the areas under two or more correlated receiver operating
    characteristic curves" (1988), from the mid-ranks of Sun and Xu, "Fast implementation of DeLong's algorithm" (2014).
    Where groups are given, items of one group are no independent draws: their components are added before the variance
    is taken, as Obuchowski, "Nonparametric analysis of clustered ROC curve data" (1997), does. No group holds both
    positives and negatives. The interval is that of the log-odds, which keeps it between 0 and 1 (Pepe, 2003, 5.2).

    Raises:
        ValueError: there are no positives or no negatives.
    """
    import numpy as np
    from scipy import stats

    high, low = np.asarray(positives, dtype=float), np.asarray(negatives, dtype=float)
    m, n = len(high), len(low)
    if not m or not n:
        raise ValueError("an area under the curve needs positives and negatives")
    together = stats.rankdata(np.concatenate([high, low]))
    above = (together[:m] - stats.rankdata(high)) / n  # for each positive, the share of negatives below it
    below = 1 - (together[m:] - stats.rankdata(low)) / m  # for each negative, the share of positives above it
    value = float(above.mean())
    variance = _variance(above - value, positive_groups) + _variance(below - value, negative_groups)
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    if not 0 < value < 1:
        return Auc(value, _separated(value, _count(positive_groups, m), _count(negative_groups, n)))
    centre, half = float(np.log(value / (1 - value))), z * float(np.sqrt(variance)) / (value * (1 - value))
    return Auc(value, (float(1 / (1 + np.exp(half - centre))), float(1 / (1 + np.exp(-half - centre)))))


def _count(groups: Sequence[Hashable] | None, items: int) -> int:
    return items if groups is None else len(set(groups))


def _separated(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """Where no pair is out of order no variance shows: the rule of three, on the smaller of the two counts."""
    far = 1 - (1 - CONFIDENCE) ** (1 / min(positives, negatives))
    return (1 - far, 1.0) if value else (0.0, far)


def _variance(components: "numpy.ndarray", groups: Sequence[Hashable] | None) -> float:
    """Variance of the mean of components that are drawn group by group, each by itself without groups."""
    import numpy as np

    if groups is None:
        sums = components
    else:
        _, places = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
        sums = np.bincount(places, weights=components)
    count = len(sums)
    if count < 2:
        return 0.25  # the largest there is: one group says nothing
    return float(count / (count - 1) * (sums**2).sum() / len(components) ** 2)


def difference_interval(one: tuple[int, int], other: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of the difference of two independent shares, each given as (successes, n).

    Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10: from the score
    intervals of the two. Where one of them has no items, nothing is known.
    """
    (hits, n), (others, m) = one, other
    if not n or not m:
        return -1.0, 1.0
    low, high = wilson(hits, n)
    low_other, high_other = wilson(others, m)
    share, share_other = hits / n, others / m
    difference = share - share_other
    down = math.hypot(share - low, high_other - share_other)
    up = math.hypot(high - share, share_other - low_other)
    return max(-1.0, difference - down), min(1.0, difference + up)


def within(interval: tuple[float, float], bound: float | None) -> dict[str, bool]:
    """Whether something that must not exceed `bound` does: `passed`, and `undecided`.

    It passes where the whole interval lies within the bound, and fails where all of it lies beyond. Without a bound
    everything passes.
    """
    low, high = interval
    passed = bound is None or high <= bound
    return {"passed": passed, "undecided": not passed and bound is not None and low <= bound}
