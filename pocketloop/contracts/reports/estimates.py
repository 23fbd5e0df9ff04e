"""What every report is made of: estimates with their intervals."""

import math
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """Closed: a key that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval of a proportion (Wilson, 1927); nothing observed says nothing: (0, 1).

    `successes` may be a sum of scores in [0, 1], which vary no more than a proportion with their mean.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


class Estimate(Report):
    """A proportion with its Wilson 95 % interval."""

    value: float
    n: int
    low: float
    high: float

    @classmethod
    def of_count(cls, successes: int, n: int) -> "Estimate":
        """The share of `n` items that are `successes`; 0 where there are none."""
        low, high = wilson(successes, n)
        return cls(value=successes / n if n else 0.0, n=n, low=low, high=high)
