"""The bootstrap of a mean under a hypothesis, its distribution computed whole instead of drawn."""

from collections.abc import Callable, Sequence

import numpy as np

_GRID = 100
_MOST_SUMS = 100_000
_EDGE = 1e-9
_CLOSE = 1e-5


class Resampled:
    """Resamples of `values`, with half an item of each of the two `added` values: the ends of what is possible.

    What did not occur cannot be drawn, and ten equal pairs would prove equality: hence the halves (Agresti and Min,
    2005, for paired proportions). Values that are no whole numbers are taken in hundredths, or in coarser steps where
    there are many.
    """

    def __init__(self, values: Sequence[float], added: tuple[int, int]) -> None:
        self.n = len(values)
        whole = all(value == int(value) for value in values)
        self._grid = 1 if whole else max(2, min(_GRID, _MOST_SUMS // (self.n * (added[1] - added[0]))))
        placed = np.rint(np.asarray(values, dtype=np.float64) * self._grid).astype(int)
        self._sum = int(placed.sum())
        self._least = added[0] * self._grid
        weights = np.bincount(placed - self._least, minlength=(added[1] - added[0]) * self._grid + 1).astype(float)
        weights[[0, -1]] += 0.5
        self._weights = weights / weights.sum()
        self._values = (np.arange(len(weights)) + self._least) / self._grid

    def at_least(self, mean: float) -> float:
        """How often n draws from a population of this mean do as well as what was observed, or better."""
        chances = _sums(self._tilted(mean), self.n)
        return float(min(1.0, chances[self._sum - self.n * self._least :].sum()))

    def at_most(self, mean: float) -> float:
        """How often n draws from a population of this mean do as badly as what was observed, or worse."""
        chances = _sums(self._tilted(mean), self.n)
        return float(min(1.0, chances[: self._sum - self.n * self._least + 1].sum()))

    def low(self, confidence: float) -> float:
        """The smallest mean that a one-sided test at this confidence does not reject."""
        return self._border(lambda mean: self.at_least(mean) - (1 - confidence), float(self._values[0]))

    def high(self, confidence: float) -> float:
        """The largest mean that a one-sided test at this confidence does not reject."""
        return self._border(lambda mean: self.at_most(mean) - (1 - confidence), float(self._values[-1]))

    def _border(self, excess: Callable[[float], float], end: float) -> float:
        """Where `excess`, positive at the observed mean, crosses zero on the way to the end; the end if it does not."""
        from scipy.optimize import brentq

        first, last = float(self._values[0]) + _EDGE, float(self._values[-1]) - _EDGE
        edge = first if end == self._values[0] else last
        kept = min(max(self._sum / self._grid / self.n, first), last)
        variance = self._weights @ self._values**2 - (self._weights @ self._values) ** 2
        step = 4 * float(np.sqrt(variance / self.n))
        while True:
            tried = max(kept - step, edge) if edge == first else min(kept + step, edge)
            if excess(tried) < 0:
                return float(brentq(excess, tried, kept, xtol=_CLOSE))
            if tried == edge:
                return end
            kept = tried

    def _tilted(self, mean: float) -> np.ndarray:
        """The weights of the population of that mean that is closest to the observed one: w e^tx (Efron, 1981)."""
        from scipy.optimize import brentq

        target = min(max(mean, self._values[0] + _EDGE), self._values[-1] - _EDGE)

        def population(turn: float) -> np.ndarray:
            tilted = self._weights * np.exp(turn * self._values - abs(turn))
            return np.asarray(tilted / tilted.sum())

        far = 8.0
        while not population(-far) @ self._values < target < population(far) @ self._values:
            far *= 2
        return population(brentq(lambda turn: population(turn) @ self._values - target, -far, far, xtol=1e-12))


def percentiles(values: Sequence[float], levels: Sequence[float]) -> list[float]:
    """Quantiles of the means of plain resamples of values in [0, 1], taken in hundredths."""
    n = len(values)
    grid = max(2, min(_GRID, _MOST_SUMS // n))
    counts = np.bincount(np.rint(np.asarray(values) * grid).astype(int), minlength=grid + 1)
    upto = np.cumsum(_sums(counts / n, n))
    return [float(min(np.searchsorted(upto, level), n * grid)) / (n * grid) for level in levels]


def _sums(weights: np.ndarray, draws: int) -> np.ndarray:
    """The chance of each sum of `draws` draws, from the smallest: one draw's Fourier transform to their power."""
    from scipy.fft import irfft, next_fast_len, rfft

    length = draws * (len(weights) - 1) + 1
    size = next_fast_len(length, real=True)
    chances = np.clip(irfft(rfft(weights, size) ** draws, size)[:length], 0, None)
    return np.asarray(chances / chances.sum())
