"""What a router's confidence is worth: how reliable it is, what each threshold costs, and which one to use.

A message stays on the phone when the label is known, is not the one that declines, and is sure enough. Everything here
is computed from outcomes that carry a confidence (0 where the answer is no label).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pocketloop.contracts.reports import CurvePoint, Estimate, ReliabilityBin, RouterReport

if TYPE_CHECKING:
    import numpy

    from pocketloop.evaluation.suite import Outcome

BINS = 10
_LEVELS = 20
_SIMULATED = 400


def router_report(
    outcomes: Sequence["Outcome"], refusal: str | None, min_accuracy: float, confidence: float
) -> RouterReport | None:
    """Reliability, the whole curve of fallback against accuracy, and the threshold; `None` without any confidence."""
    import numpy as np

    known = [outcome for outcome in outcomes if outcome.confidence is not None]
    if not known:
        return None
    sure = np.array([outcome.confidence for outcome in known], dtype=np.float64)
    right = np.array([outcome.answer == outcome.reference for outcome in known])
    stays = np.array([outcome.answer != refusal for outcome in known]) & (sure > 0)
    labelled = sure > 0
    chosen = choose_threshold(sure[stays], right[stays], min_accuracy, confidence)
    return RouterReport(
        n=len(known),
        reliability=reliability(sure[labelled], right[labelled]),
        error=calibration_error(sure[labelled], right[labelled]),
        error_by_chance=_error_by_chance(sure[labelled]),
        auroc=_auroc(sure[labelled], right[labelled]),
        curve=[_point(at, sure, right, stays) for at in [0.0, *np.unique(sure[stays])]],
        min_accuracy=min_accuracy,
        sure=confidence,
        tried=_LEVELS,
        threshold=chosen,
        at_threshold=None if chosen is None else _point(chosen, sure, right, stays),
    )


def reliability(confidence: "numpy.ndarray", right: "numpy.ndarray") -> list[ReliabilityBin]:
    """Up to ten bins of equally many answers, the least sure first; equal confidences are never parted.

    Bins of equal width would leave most of them empty: a router is sure of nearly everything it says.
    """
    return [
        ReliabilityBin(
            low=float(confidence[places].min()),
            high=float(confidence[places].max()),
            confidence=float(confidence[places].mean()),
            right=Estimate.of_count(int(right[places].sum()), len(places)),
        )
        for places in _bins(confidence)
    ]


def calibration_error(confidence: "numpy.ndarray", right: "numpy.ndarray") -> float:
    """Mean distance of confidence and accuracy over the bins of `reliability`, weighted by their sizes.

    The expected calibration error of Naeini et al. (2015) with the adaptive bins of Nixon et al. (2019).
    """
    n = len(confidence)
    return float(sum(abs(confidence[at].mean() - right[at].mean()) * len(at) / n for at in _bins(confidence)))


def choose_threshold(
    confidence: "numpy.ndarray", right: "numpy.ndarray", min_accuracy: float, sure: float
) -> float | None:
    """The lowest of 20 thresholds above which at least `min_accuracy` of the answers are right, with confidence `sure`.

    The thresholds keep 5, 10 ... 100 % of the answers, so they depend on the confidences alone; each is tested by an
    exact binomial bound at (1 - sure) / 20, so that the choice among them is paid for. `None` where none holds.
    """
    import numpy as np
    from scipy.stats import beta

    n = len(confidence)
    falling = np.sort(confidence)[::-1]
    ranks = sorted({max(1, round(n * level / _LEVELS)) for level in range(1, _LEVELS + 1)}) if n else []
    # Written with four digits, and judged as written.
    tried = {math.floor(falling[rank - 1] * 1e4) / 1e4 for rank in ranks}
    for threshold in sorted(tried):
        kept = right[confidence >= threshold]
        hits, total = int(kept.sum()), len(kept)
        low = beta.ppf((1 - sure) / _LEVELS, hits, total - hits + 1) if hits else 0.0
        if low >= min_accuracy:
            return threshold
    return None


def _bins(confidence: "numpy.ndarray") -> list["numpy.ndarray"]:
    import numpy as np

    order = np.argsort(confidence, kind="stable")
    n = len(order)
    bins, start = [], 0
    for number in range(1, BINS + 1):
        end = round(number * n / BINS)
        while start < end < n and confidence[order[end]] == confidence[order[end - 1]]:
            end += 1
        if end > start:
            bins.append(order[start:end])
            start = end
    return bins


def _error_by_chance(confidence: "numpy.ndarray", seed: int = 0) -> float:
    """The 95th percentile of the error where each answer is right exactly as often as its confidence says.

    Consistency resampling (Bröcker and Smith, 2007).
    """
    import numpy as np

    if not len(confidence):
        return 0.0
    draws = np.random.default_rng(seed).random((_SIMULATED, len(confidence))) < confidence
    n = len(confidence)
    errors = sum(np.abs(draws[:, at].mean(axis=1) - confidence[at].mean()) * len(at) / n for at in _bins(confidence))
    return float(np.quantile(errors, 0.95))


def _auroc(confidence: "numpy.ndarray", right: "numpy.ndarray") -> float | None:
    from scipy.stats import mannwhitneyu

    hits, misses = confidence[right], confidence[~right]
    if not len(hits) or not len(misses):
        return None
    return float(mannwhitneyu(hits, misses).statistic / (len(hits) * len(misses)))


def _point(threshold: float, sure: "numpy.ndarray", right: "numpy.ndarray", stays: "numpy.ndarray") -> CurvePoint:
    kept = stays & (sure >= threshold)
    n, held, hits = len(sure), int(kept.sum()), int((kept & right).sum())
    return CurvePoint(
        threshold=float(threshold),
        cloud=(n - held) / n,
        accuracy=hits / held if held else None,
        wrong=(held - hits) / n,
        lost=int((stays & ~kept & right).sum()) / n,
    )
