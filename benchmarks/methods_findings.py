"""What an experiment of `methods.py` found: figures by variant, and claims that hold, do not hold, or stay open."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from pocketloop.contracts.reports import Estimate
from pocketloop.evaluation.statistics import estimate


class Row(BaseModel):
    """One variant: its figures by column (`None`: not measured), and the processor seconds of its training."""

    name: str
    figures: dict[str, Estimate | float | None]
    seconds: float | None = None


class Claim(BaseModel):
    """A difference with its 95 % interval; it holds when the interval lies above `-margin`.

    Where nothing may be lost, `margin` is what counts as nothing.
    """

    text: str
    difference: float
    low: float
    high: float
    n: int
    margin: float = 0.0

    @property
    def verdict(self) -> Literal["holds", "open", "does not hold"]:
        """What the interval says."""
        if self.low > -self.margin:
            return "holds"
        return "does not hold" if self.high <= -self.margin else "open"


class Finding(BaseModel):
    """An experiment: what was compared, and what came of it. `remark` says why, where that needs saying."""

    key: str
    title: str
    setting: str
    rows: list[Row]
    claims: list[Claim]
    remark: str = ""
    tables: dict[str, dict[str, float]] = Field(default_factory=dict)


def compare(text: str, after: Sequence[float], before: Sequence[float], margin: float = 0.0) -> Claim:
    """A claim about the mean difference on the same items (paired bootstrap)."""
    found = _bootstrap([new - old for new, old in zip(after, before, strict=True)])
    return Claim(text=text, difference=found.value, low=found.low, high=found.high, n=found.n, margin=margin)


def exceeds(text: str, share: Estimate, bound: float) -> Claim:
    """A claim that a share lies above `bound` (Wilson)."""
    return Claim(text=text, difference=share.value - bound, low=share.low - bound, high=share.high - bound, n=share.n)


def column(rows: Sequence[dict[str, float]], name: str) -> list[float]:
    """One metric of all items that have it."""
    return [row[name] for row in rows if name in row]


def average(values: Sequence[float]) -> Estimate:
    """Mean with its interval; rewards and divergences lie beyond [0, 1], for which `estimate` is made."""
    within = all(0 <= value <= 1 for value in values)
    return estimate(values) if within else _bootstrap(values)


def _bootstrap(values: Sequence[float]) -> Estimate:
    """The mean of anything, with the percentile bootstrap's interval."""
    from scipy.stats import bootstrap

    drawn = bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(0))
    low, high = drawn.confidence_interval
    return Estimate(value=float(np.mean(values)), n=len(values), low=float(low), high=float(high))


def win_rate(after: Sequence[float], before: Sequence[float]) -> Estimate:
    """Share of wins among the items on which the two differ."""
    wins = sum(one > other for one, other in zip(after, before, strict=True))
    losses = sum(one < other for one, other in zip(after, before, strict=True))
    return Estimate.of_count(wins, wins + losses)


def sum_of(values: Sequence[float]) -> float:
    """Exact sum."""
    return math.fsum(values)
