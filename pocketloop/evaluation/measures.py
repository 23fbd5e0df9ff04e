"""What a set's outcomes say together and no single item says alone: ratios over many items, and dialogues as a whole.

Everything here is computed from outcomes, so that it can be computed again from those that were stored.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pocketloop.contracts.reports import Estimate, wilson
from pocketloop.evaluation.preference import even_length
from pocketloop.evaluation.statistics import estimate

if TYPE_CHECKING:
    import numpy

    from pocketloop.evaluation.suite import Outcome

_RESAMPLES = 2_000
_CELLS = 4_000_000
_RATIOS = {
    "argument_precision": ("arguments_said_right", "arguments_said"),
    "argument_recall": ("arguments_wanted_right", "arguments_wanted"),
    "carried_recall": ("arguments_carried_right", "arguments_carried"),
}
"""Metric to the counts that it is a ratio of; where there are none, there is no such metric."""
_RIGHT = {"function_call": "function_right", "chat": "chat_right", "intent": "intent_accuracy"}


def measures(outcomes: Sequence["Outcome"], task: str) -> dict[str, Estimate]:
    """Every metric of a set, those that are a mean over items first, each with a 95 % interval.

    Means are over the items to which the metric applies. Of dialogues, intervals come from resampling whole dialogues:
    turns of one are no independent items. `intent_macro_f1` is the mean F1 over the labels that are right somewhere;
    `argument_precision` and `argument_recall` are over all arguments of all calls; `carried_recall` is over those
    wanted arguments whose value stands in an earlier turn only; `dialogue_right` over whole dialogues. Win rates
    are over the items that a judge compared with the champion's answers.
    """
    clusters = [outcome.dialogue or outcome.example_id for outcome in outcomes]
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.scores)
    found: dict[str, Estimate] = {}
    for name in names:
        held = [(o.scores[name], c) for o, c in zip(outcomes, clusters, strict=True) if name in o.scores]
        values, groups = [value for value, _ in held], [cluster for _, cluster in held]
        alone = len(set(groups)) == len(groups)
        found[name] = estimate(values) if alone else ratio(values, [1.0] * len(values), groups)
    if task == "intent" and outcomes:
        found["intent_macro_f1"] = macro_f1([o.reference for o in outcomes], [o.answer for o in outcomes])
    for name, (part, whole) in _RATIOS.items():
        if any(outcome.counts.get(whole) for outcome in outcomes):
            parts, wholes = ([outcome.counts.get(key, 0.0) for outcome in outcomes] for key in (part, whole))
            found[name] = ratio(parts, wholes, clusters)
    judged = [outcome.counts for outcome in outcomes if "won" in outcome.counts]
    if judged:
        wins, longer = [counts["won"] for counts in judged], [counts["longer"] for counts in judged]
        found |= {"chat_win_rate": estimate(wins), "chat_win_rate_even_length": even_length(wins, longer)}
    if any(outcome.dialogue for outcome in outcomes):
        found["dialogue_right"] = estimate(list(dialogues(outcomes, _RIGHT[task]).values()))
    return found


def dialogues(outcomes: Sequence["Outcome"], metric: str) -> dict[str, float]:
    """By dialogue, 1 where every turn of it is wholly right.

    Each turn is asked after the right turns before it. Where only one answer is right, a model that answers the same
    request in the same way gets through such a dialogue by itself, too.
    """
    found: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.dialogue:
            whole = float(outcome.scores.get(metric, 0.0) == 1.0)
            found[outcome.dialogue] = min(found.get(outcome.dialogue, 1.0), whole)
    return found


def ratio(parts: Sequence[float], wholes: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Sum of `parts` over sum of `wholes`, with a 95 % interval from resampling `clusters`; `n` is the sum of `wholes`.

    Where all clusters have the same ratio of 0 or 1, resampling would show no doubt at all: the interval is then
    Wilson's for as many items as there are clusters.
    """
    import numpy as np

    places: dict[str, int] = {}
    sums = np.zeros((len(set(clusters)), 2))
    for part, whole, cluster in zip(parts, wholes, clusters, strict=True):
        if whole:
            sums[places.setdefault(cluster, len(places))] += part, whole
    sums = sums[: len(places)]
    total, n = sums[:, 0].sum(), sums[:, 1].sum()
    if not n:
        return Estimate(value=0.0, n=0, low=0.0, high=1.0)
    value = float(total / n)
    if value in (0.0, 1.0):
        low, high = wilson(round(value * len(sums)), len(sums))
    else:
        low, high = ratio_bounds(sums[:, 0].tolist(), sums[:, 1].tolist(), seed)
    return Estimate(value=value, n=round(float(n)), low=min(low, value), high=max(high, value))


def ratio_bounds(parts: Sequence[float], wholes: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % bounds of the sum of `parts` over the sum of `wholes`, which are positive, from resampling the pairs."""
    import numpy as np

    sums = np.stack([np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)], axis=1)
    drawn = np.concatenate([weights @ sums for weights in _resamples(len(sums), seed)])
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(low), float(high)


def macro_f1(references: Sequence[str], answers: Sequence[str], seed: int = 0) -> Estimate:
    """Mean F1 over the labels that are right somewhere, with a bootstrap 95 % interval; an answer may be any class."""
    import numpy as np

    labels = sorted(set(references))
    place = {label: at for at, label in enumerate(labels)}
    wanted, said = np.zeros((len(references), len(labels))), np.zeros((len(references), len(labels)))
    for row, (reference, answer) in enumerate(zip(references, answers, strict=True)):
        wanted[row, place[reference]] = 1
        if answer in place:
            said[row, place[answer]] = 1
    table = np.concatenate([wanted * said, wanted + said], axis=1)
    value = float(_mean_f1(table.sum(axis=0)[None])[0])
    drawn = np.concatenate([_mean_f1(weights @ table) for weights in _resamples(len(references), seed)])
    low, high = (float(bound) for bound in np.quantile(drawn, [0.025, 0.975]))
    if value in (0.0, 1.0):
        low, high = wilson(round(value * len(references)), len(references))
    return Estimate(value=value, n=len(references), low=min(low, value), high=max(high, value))


def _mean_f1(sums: "numpy.ndarray") -> "numpy.ndarray":
    """From [resamples, hits by label then wanted + said by label] to the mean over labels in the resample."""
    import numpy as np

    hits, both = np.split(sums, 2, axis=1)
    f1 = np.divide(2 * hits, both, out=np.full_like(hits, np.nan), where=both > 0)
    return np.nanmean(f1, axis=1)


def _resamples(n: int, seed: int) -> "Iterator[numpy.ndarray]":
    """How often each of `n` items is in each resample, in blocks [resamples, n]."""
    import numpy as np

    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // n)
    even = np.full(n, 1 / n)
    for start in range(0, _RESAMPLES, rows):
        yield generator.multinomial(n, even, size=min(rows, _RESAMPLES - start)).astype(np.float64)
