"""How far two raters agree beyond chance."""

from dataclasses import dataclass

BOOTSTRAP = 2000

Table = list[list[int]]
"""`table[i][j]` counts the items that the first rater put into class i and the second into class j."""


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of `n` items with a 95 % interval; `None` where one rater always said the same."""

    n: int
    kappa: float | None
    interval: tuple[float, float] | None


def cohen_kappa(table: Table) -> float | None:
    """Cohen's kappa (Cohen, 1960) of a square table of counts; `None` when chance alone explains everything."""
    total = sum(map(sum, table))
    if total == 0:
        return None
    observed = sum(table[i][i] for i in range(len(table))) / total
    expected = sum(sum(table[i]) * sum(row[i] for row in table) for i in range(len(table))) / total**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def agreement(table: Table, seed: int = 0) -> Agreement:
    """Kappa of two yes-or-no raters, with a percentile bootstrap interval over items (2,000 resamples).

    Resampling items with replacement is the same as drawing the four counts of their table from a multinomial.
    """
    import numpy as np

    total = sum(map(sum, table))
    kappa = cohen_kappa(table)
    if kappa is None:
        return Agreement(total, None, None)
    shares = np.array(table, dtype=float).ravel() / total
    draws = np.random.default_rng(seed).multinomial(total, shares, size=BOOTSTRAP)
    values = [cohen_kappa(draw.reshape(2, 2).tolist()) for draw in draws]
    known = [value for value in values if value is not None]
    low, high = np.percentile(known, [2.5, 97.5])
    return Agreement(total, kappa, (float(low), float(high)))
