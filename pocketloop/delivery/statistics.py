"""Always-valid tests on counts of devices: look as often as you like.

Devices are assigned to arms by a salted hash. If the new file harms nobody more than the old one, then who is affected,
and when, does not depend on the arm: of the devices newly affected within an hour, each is a canary device with
probability q, the canary's share of those that could still be affected. A likelihood ratio of the k canary devices
among those m, against a canary whose devices are affected `theta` times as often,

    log LR = k log(theta) - m log(1 + q (theta - 1)),

multiplied over hours, is an e-process, and a mixture over theta is one too: with probability at least 1 - alpha it
never exceeds 1/alpha, however often one looks (Ville). This is the safe logrank test (ter Schure, Pérez-Ortiz, Ly and
Grünwald, "The Safe Logrank Test", 2020) in discrete time. Devices affected within one hour are drawn without
replacement; the ratio is convex in k, so that its mean is then at most that of independent draws (Hoeffding, 1963,
theorem 4): ties cost nothing. Cohorts (devices that entered at different rungs) are strata: their terms add up.

Arrays: the last two axes of `Counts` are cohorts and hours.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BIG_RATIO = 1e9
"""Written for a ratio that nothing bounds from above."""
_NATURE = (0.2, 0.6, 2.0)
"""Scales of log(theta) that alternatives are spread over: a fifth more, twice, or many times as many."""


@dataclass(frozen=True)
class Counts:
    """Newly affected devices and those at risk just before, by arm; float arrays of shape (..., cohorts, hours)."""

    canary: np.ndarray
    both: np.ndarray
    canary_at_risk: np.ndarray
    both_at_risk: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """The canary's share of the devices at risk; a half where there are none."""
        some = self.both_at_risk > 0
        return np.where(some, self.canary_at_risk / np.where(some, self.both_at_risk, 1.0), 0.5)

    def together(self) -> "Counts":
        """One fleet's counts as strata of a single hour, for what depends on all of them but not on their order."""
        some = self.both > 0
        parts = (self.canary, self.both, self.canary_at_risk, self.both_at_risk)
        return Counts(*(part[some].reshape(-1, 1) for part in parts))


def stack(fleets: list[Counts]) -> Counts:
    """Counts of several fleets, or of parts of one, along a new first axis."""
    return Counts(
        np.stack([one.canary for one in fleets]),
        np.stack([one.both for one in fleets]),
        np.stack([one.canary_at_risk for one in fleets]),
        np.stack([one.both_at_risk for one in fleets]),
    )


def log_likelihood(counts: Counts, theta: np.ndarray) -> np.ndarray:
    """Log likelihood of each ratio in `theta` relative to 1, by hour: shape (..., hours, len(theta))."""
    share = counts.share[..., None]
    terms = counts.canary[..., None] * np.log(theta) - counts.both[..., None] * np.log1p(share * (theta - 1))
    summed: np.ndarray = terms.sum(axis=-3)
    return summed


def harm(counts: Counts) -> np.ndarray:
    """Log e-process, by hour, against "the canary affects no more devices than its control": shape (..., hours).

    The bet is spread over how much worse, and over when it begins: half of it on the first hour, the rest on the days
    after, so that a canary that does better at first and worse later is found on the evidence of the later days.
    It holds for every ratio up to 1, also one that changes with time.
    """
    theta, weight = _above_one()
    steps = log_likelihood(counts, theta)
    hours = steps.shape[-2]
    running = np.full((*steps.shape[:-2], len(theta)), -np.inf)
    out = np.empty(steps.shape[:-1])
    waiting = 1.0
    for hour in range(hours):
        begins = _restart(hour)
        if begins:
            waiting -= begins
            running = np.logaddexp(running, math.log(begins) + weight)
        running = running + steps[..., hour, :]
        out[..., hour] = np.logaddexp(_log_sum(running), math.log(waiting))
    return out


def noninferiority(counts: Counts, max_ratio: float) -> np.ndarray:
    """Log e-process, by hour, against "the ratio is `max_ratio` or more": shape (..., hours).

    Half of the bet is on equality, which is what a good adapter shows; the rest is spread below `max_ratio`.
    """
    spread = np.exp(np.linspace(math.log(0.25), math.log(max_ratio), 25)[:-1])
    theta = np.append(spread, [1.0, max_ratio])
    total = np.cumsum(log_likelihood(counts, theta), axis=-2)
    weight = np.append(np.full(len(spread), math.log(0.5 / len(spread))), math.log(0.5))
    return _log_sum(total[..., :-1] - total[..., -1:] + weight)


def confidence_sequence(counts: Counts, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the ratio, by hour: all hours' intervals hold together with this confidence.

    A ratio is kept while the mixture over all ratios has not beaten it by 1/(1 - confidence). Bounds are 0 and
    BIG_RATIO where the data say nothing. Shapes (..., hours).
    """
    theta = np.exp(np.linspace(math.log(0.01), math.log(100.0), 801))
    total = np.cumsum(log_likelihood(counts, theta), axis=-2)
    prior = _log_normals(np.log(theta))
    mixture = _log_sum(total + prior - _log_sum(prior))
    kept = mixture[..., None] - total < -math.log1p(-confidence)
    # The likelihood is concave in log(theta): what is kept is one stretch of the grid; a step outward is safe.
    first = kept.argmax(axis=-1)
    last = len(theta) - 1 - kept[..., ::-1].argmax(axis=-1)
    low = np.where(first > 0, theta[np.maximum(first - 1, 0)], 0.0)
    high = np.where(last < len(theta) - 1, theta[np.minimum(last + 1, len(theta) - 1)], BIG_RATIO)
    return low, high


def log_e_binomial(successes: int, n: int, share: float, strength: float = 100.0) -> float:
    """Two-sided log e-value of `successes` in `n` draws against the probability `share`: a beta mixture.

    With the same `share` at every draw its value depends on the totals alone. `strength` is a + b of the beta, centred
    at `share`: the larger, the smaller the deviations that it looks for.
    """
    a, b = strength * share, strength * (1 - share)
    mixture = _betaln(a + successes, b + n - successes) - _betaln(a, b)
    return mixture - successes * math.log(share) - (n - successes) * math.log1p(-share)


def log_e_rare(affected: npt.ArrayLike, n: npt.ArrayLike, bound: float) -> np.ndarray:
    """Log e-value against "the share of affected devices is `bound` or more", a mixture over smaller shares.

    The share of those affected so far only grows: while the devices are the same, a look at which it is shown to be
    small enough is a look at which it was, and later looks can only show less. `affected` of `n` may be arrays of one
    shape, which is the shape of the result.
    """
    hit, seen = np.asarray(affected, dtype=float)[..., None], np.asarray(n, dtype=float)[..., None]
    if bound <= 0:
        return np.zeros(hit.shape[:-1])
    shares = bound * np.array([0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85])
    gains = hit * np.log(shares / bound) + (seen - hit) * (np.log1p(-shares) - math.log1p(-bound))
    return _log_sum(gains) - math.log(len(shares))


def _above_one() -> tuple[np.ndarray, np.ndarray]:
    """Ratios above 1 and their log weights."""
    logs = np.linspace(math.log(1.03), math.log(50.0), 40)
    weight = _log_normals(logs)
    return np.exp(logs), weight - _log_sum(weight)


def _log_normals(logs: np.ndarray) -> np.ndarray:
    """Log density, up to a constant, of an equal mixture of centred normals with the scales of _NATURE."""
    scales = np.array(_NATURE)
    return _log_sum(-0.5 * (logs[:, None] / scales) ** 2 - np.log(scales))


def _restart(hour: int) -> float:
    """The part of the bet that begins at this hour: a half at first, then 1 / (2 d (d + 1)) on day d; all sum to 1."""
    if hour == 0:
        return 0.5
    day, rest = divmod(hour, 24)
    return 0.0 if rest else 0.5 / (day * (day + 1))


def _log_sum(values: np.ndarray) -> np.ndarray:
    """log(sum(exp(values))) over the last axis."""
    top = values.max(axis=-1, keepdims=True)
    summed: np.ndarray = np.log(np.exp(values - top).sum(axis=-1)) + top[..., 0]
    return summed


def _betaln(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
