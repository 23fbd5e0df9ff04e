"""Intervals and paired comparisons: what a held-out set of this size can say, and what it cannot.

Scores are in [0, 1]. Nothing here is drawn: a bootstrap's distribution is computed whole, so the same outcomes give the
same verdict on every machine and at every time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

from pocketloop.contracts.reports import Estimate, Verdict, wilson


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of scores in [0, 1] with a 95 % interval: Wilson's where every score is 0 or 1, else a bootstrap's."""
    n = len(values)
    if n == 0:
        return Estimate(value=0.0, n=0, low=0.0, high=1.0)
    mean = math.fsum(values) / n
    if _binary(values):
        low, high = wilson(round(math.fsum(values)), n)
    else:
        from pocketloop.evaluation.resampling import percentiles

        low, high = percentiles(values, (0.025, 0.975))
        low, high = min(low, mean), max(high, mean)
    return Estimate(value=mean, n=n, low=low, high=high)


@dataclass(frozen=True)
class Comparison:
    """Candidate minus reference on the same items.

    `low` and `high` are one-sided bounds, each at the asked confidence. Of `n` items the candidate is better on `wins`
    and worse on `losses`. `p` belongs to the hypothesis that a pass rejects, `p_against` to the one that a fail
    rejects.
    """

    difference: float
    low: float
    high: float
    n: int
    wins: int
    losses: int
    p: float
    p_against: float
    test: str
    verdict: Verdict

    @property
    def discordant(self) -> int:
        """Items on which the two differ."""
        return self.wins + self.losses


def noninferior(
    candidate: Sequence[float], reference: Sequence[float], margin: float, confidence: float = 0.95
) -> Comparison:
    """Whether the candidate is at most `margin` worse than the reference, by a paired bootstrap.

    Pass where "worse by `margin` or more" is rejected, fail where "worse by `margin` at most" is, each one-sided at
    `confidence`; otherwise inconclusive. The bootstrap is of the hypothesis (Efron, 1981): the observed differences are
    weighed by e^tx so that their mean is -margin, and the p-value is how often n draws of them do as well as the
    candidate did. Half a win and half a loss are added first (Agresti and Min, 2005): what did not occur could not be
    drawn, and ten equal pairs would prove equality.
    """
    return _compare(candidate, reference, -margin, confidence, "paired bootstrap")


def superior(
    candidate: Sequence[float], reference: Sequence[float], margin: float = 0, confidence: float = 0.95
) -> Comparison:
    """Whether the candidate is better than the reference by more than `margin`.

    With a margin of 0 and scores of 0 or 1 by the exact McNemar test, otherwise by the paired bootstrap. A candidate
    that is no better at all on these items fails, whatever its upper bound.
    """
    found = _compare(candidate, reference, margin, confidence, "paired bootstrap")
    p, p_against, test = found.p, found.p_against, found.test
    if margin == 0 and _binary(candidate) and _binary(reference):
        p = mcnemar_exact(found.losses, found.wins, "greater")
        p_against = mcnemar_exact(found.wins, found.losses, "greater")
        test = "exact McNemar"
    verdict = _verdict(p, p_against, confidence)
    if verdict == "inconclusive" and found.n and found.difference <= 0:
        verdict = "fail"
    return replace(found, p=p, p_against=p_against, test=test, verdict=verdict)


def mcnemar_exact(losses: int, wins: int, alternative: Literal["two-sided", "greater"] = "two-sided") -> float:
    """Exact McNemar p-value from the discordant pairs (`greater`: are there more wins than chance gives?).

    Whole Python numbers throughout: products of fixed-width counts overflow without a word.
    """
    losses, wins = int(losses), int(wins)
    n = losses + wins
    if alternative == "greater":
        return _tail(n, losses)
    return min(1.0, 2 * _tail(n, min(losses, wins)))


def below(values: Sequence[float], floor: float) -> float:
    """One-sided p-value of "the mean is at least `floor`": small where these scores say that it lies below.

    The exact binomial test where every score is 0 or 1, otherwise the bootstrap of `noninferior` on one sample.
    """
    n = len(values)
    if n == 0:
        return 1.0
    if _binary(values):
        from scipy.stats import binom

        return float(binom.cdf(round(math.fsum(values)), n, floor))
    from pocketloop.evaluation.resampling import Resampled

    return Resampled(values, (0, 1)).at_most(floor)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order (Holm, 1979).

    Calling those below a level significant makes one false call or more at most as often as the level says, however
    the tests hang together.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for place, at in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def chance_to_pass(n: int, discordance: float, margin: float, confidence: float = 0.95) -> float:
    """Probability that an equally good candidate passes `noninferior`: normal approximation of a paired comparison.

    `discordance` is the share of items on which the two differ.
    """
    return _power(n, 0.0, discordance, -margin, confidence)


def pairs_needed(discordance: float, margin: float, confidence: float = 0.95, power: float = 0.8) -> int:
    """The smallest set on which an equally good candidate passes with probability `power`."""
    return _smallest(lambda n: chance_to_pass(n, discordance, margin, confidence) >= power)


def chance_to_win(n: int, gain: float, discordance: float, margin: float = 0, confidence: float = 0.95) -> float:
    """Probability that a candidate that is better by `gain` passes `superior`: normal approximation."""
    return _power(n, gain, discordance, margin, confidence)


def wins_needed(
    gain: float, discordance: float, margin: float = 0, confidence: float = 0.95, power: float = 0.8
) -> int:
    """The smallest set on which a candidate that is better by `gain` > `margin` passes with probability `power`."""
    return _smallest(lambda n: chance_to_win(n, gain, discordance, margin, confidence) >= power)


def items_for_width(share: float, half_width: float) -> int:
    """The smallest set on which a proportion's Wilson 95 % interval is at most `half_width` wide either way."""

    def narrow(n: int) -> bool:
        low, high = wilson(round(share * n), n)
        return (high - low) / 2 <= half_width

    return _smallest(narrow)


def optimism(candidates: int, n: int, spread: float) -> float:
    """By how much the best of equally good candidates looks better than it is, on the `n` items that chose it.

    σ √(2 ln k) bounds the expected maximum of k sub-Gaussian errors whose standard error is σ = `spread` / √n, however
    they hang together (Boucheron, Lugosi and Massart, "Concentration Inequalities", 2013, section 2.5). `spread` is the
    standard deviation of one item: √(p(1 - p)) for a share, √discordance for a paired difference.
    """
    return spread / math.sqrt(n) * math.sqrt(2 * math.log(candidates)) if candidates > 1 and n else 0.0


def _compare(
    candidate: Sequence[float], reference: Sequence[float], boundary: float, confidence: float, test: str
) -> Comparison:
    """Where the mean difference lies relative to `boundary`: above it is a pass."""
    from pocketloop.evaluation.resampling import Resampled

    if len(candidate) != len(reference):
        raise ValueError("paired scores must have equal lengths")
    differences = [ours - theirs for ours, theirs in zip(candidate, reference, strict=True)]
    n = len(differences)
    if n == 0:
        return Comparison(0.0, -1.0, 1.0, 0, 0, 0, 1.0, 1.0, test, "inconclusive")
    resampled = Resampled(differences, (-1, 1))
    p, p_against = resampled.at_least(boundary), resampled.at_most(boundary)
    return Comparison(
        difference=math.fsum(differences) / n,
        low=resampled.low(confidence),
        high=resampled.high(confidence),
        n=n,
        wins=sum(bool(d > 0) for d in differences),
        losses=sum(bool(d < 0) for d in differences),
        p=p,
        p_against=p_against,
        test=test,
        verdict=_verdict(p, p_against, confidence),
    )


def _verdict(p: float, p_against: float, confidence: float) -> Verdict:
    return "pass" if p < 1 - confidence else "fail" if p_against < 1 - confidence else "inconclusive"


def _power(n: int, true: float, discordance: float, boundary: float, confidence: float) -> float:
    """Chance that a true difference is found to lie above `boundary`: normal approximation of `_compare`'s test.

    The variance is that of the closest population on the boundary where the hypothesis is tested, and the true one
    otherwise; each counts the half win and half loss that are added.
    """
    if n == 0:
        return 0.0
    share = (n * discordance + 1) / (n + 1)
    wins, losses = (share + true) / 2, (share - true) / 2
    # w x - l / x = boundary (w x + l / x + rest), for x = e^t
    a, b, c = wins * (1 - boundary), -boundary * (1 - share), -losses * (1 + boundary)
    x = (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)
    differ = wins * x + losses / x
    under = math.sqrt((differ / (differ + 1 - share) - boundary**2) / n)
    spread = math.sqrt((share - true**2) / n)
    normal = NormalDist()
    return normal.cdf((true - boundary - normal.inv_cdf(confidence) * under) / spread)


def _binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)


def _smallest(enough: Callable[[int], bool]) -> int:
    """The smallest count from which on `enough` holds."""
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _tail(n: int, most: int) -> float:
    """P(X <= most) for X ~ Binomial(n, 1/2), exactly."""
    term = total = 1
    for drawn in range(1, most + 1):
        term = term * (n - drawn + 1) // drawn
        total += term
    return total / (1 << n)
