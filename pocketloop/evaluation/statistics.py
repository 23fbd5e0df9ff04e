"""Intervals and paired comparisons: what a held-out set of this size can say, and what it cannot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from pocketloop.contracts.reports import Estimate, Verdict, wilson

if TYPE_CHECKING:
    import numpy

_RESAMPLES = 10_000
_CELLS = 2_000_000


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean of scores in [0, 1] with a 95 % interval: Wilson's where every score is 0 or 1, else a bootstrap's."""
    n = len(values)
    if n == 0:
        return Estimate(value=0.0, n=0, low=0.0, high=1.0)
    mean = math.fsum(values) / n
    if all(value in (0, 1) for value in values):
        low, high = wilson(round(math.fsum(values)), n)
    else:
        low, high = _quantiles(_bootstrap_means(values, seed), 0.025, 0.975)
        low, high = min(low, mean), max(high, mean)
    return Estimate(value=mean, n=n, low=low, high=high)


@dataclass(frozen=True)
class Comparison:
    """Candidate minus reference on the same items, with one-sided bounds, each at the asked confidence."""

    difference: float
    low: float
    high: float
    n: int
    discordant: int
    verdict: Verdict


def noninferior(
    candidate: Sequence[float], reference: Sequence[float], margin: float, confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """Whether the candidate is at most `margin` worse than the reference, by a paired bootstrap.

    Pass when the lower bound of the mean difference is at least -margin, fail when the upper bound is below -margin,
    otherwise inconclusive. The resampled differences hold one win and one loss more than were observed: a bootstrap
    cannot draw what did not occur, so that ten equal pairs would prove equality (the correction is Agresti and Min's,
    2005, with whole pairs instead of halves).
    """
    if len(candidate) != len(reference):
        raise ValueError("paired scores must have equal lengths")
    differences = [ours - theirs for ours, theirs in zip(candidate, reference, strict=True)]
    n = len(differences)
    if n == 0:
        return Comparison(0.0, -1.0, 1.0, 0, 0, "inconclusive")
    means = _bootstrap_means([*differences, 1.0, -1.0], seed)
    low, high = _quantiles(means, 1 - confidence, confidence)
    verdict: Verdict = "pass" if low >= -margin else "fail" if high < -margin else "inconclusive"
    discordant = sum(difference != 0 for difference in differences)
    return Comparison(math.fsum(differences) / n, low, high, n, discordant, verdict)


def mcnemar_exact(losses: int, wins: int, alternative: Literal["two-sided", "greater"] = "two-sided") -> float:
    """Exact McNemar p-value from the discordant pairs (`greater`: are there more wins than chance gives?).

    Whole Python numbers throughout: products of fixed-width counts overflow without a word.
    """
    losses, wins = int(losses), int(wins)
    n = losses + wins
    if alternative == "greater":
        return _tail(n, losses)
    return min(1.0, 2 * _tail(n, min(losses, wins)))


def chance_to_pass(n: int, discordance: float, margin: float, confidence: float = 0.95) -> float:
    """Probability that an equally good candidate passes `noninferior`: normal approximation of a paired comparison.

    `discordance` is the share of items on which the two differ.
    """
    if n == 0:
        return 0.0
    # The added pair of one win and one loss, as in `noninferior`.
    spread = math.sqrt(n * discordance + 2) / (n + 2)
    normal = NormalDist()
    return normal.cdf(margin / spread - normal.inv_cdf(confidence))


def pairs_needed(discordance: float, margin: float, confidence: float = 0.95, power: float = 0.8) -> int:
    """The smallest set on which an equally good candidate passes with probability `power`."""
    low, high = 0, 1
    while chance_to_pass(high, discordance, margin, confidence) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = chance_to_pass(middle, discordance, margin, confidence) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def _tail(n: int, most: int) -> float:
    """P(X <= most) for X ~ Binomial(n, 1/2), exactly."""
    term = total = 1
    for drawn in range(1, most + 1):
        term = term * (n - drawn + 1) // drawn
        total += term
    return total / (1 << n)


def _bootstrap_means(values: Sequence[float], seed: int) -> "numpy.ndarray":
    """Means of `_RESAMPLES` resamples; drawn as multinomial counts of the distinct values, which is the same."""
    import numpy as np

    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = int(counts.sum())
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // len(distinct))
    parts = []
    for start in range(0, _RESAMPLES, rows):
        drawn = generator.multinomial(n, counts / n, size=min(rows, _RESAMPLES - start))
        parts.append(drawn @ distinct / n)
    return np.concatenate(parts)


def _quantiles(means: "numpy.ndarray", low: float, high: float) -> tuple[float, float]:
    import numpy as np

    found = np.quantile(means, [low, high])
    return float(found[0]), float(found[1])
