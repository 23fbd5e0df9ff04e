"""One adapter in two runtimes: what the exported files lose, or win, beside transformers on the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pocketloop.evaluation.statistics import noninferior
from pocketloop.evaluation.suite import Outcome, Outcomes


@dataclass(frozen=True)
class RuntimeDifference:
    """A metric as the phone runs the adapter minus as transformers runs it, on `n` items that both answered.

    `low` and `high` are a paired 95 % interval; of the items, `lost` are worse on the phone and `gained` better.
    """

    metric: str
    n: int
    phone: float
    transformers: float
    difference: float
    low: float
    high: float
    lost: int
    gained: int


def runtime_differences(outcomes: Outcomes, metrics: Sequence[str]) -> list[RuntimeDifference]:
    """For each metric that both runtimes were measured by, in order; none where transformers was not asked."""
    before = {outcome.example_id: outcome for outcome in outcomes.get("transformers", ())}
    pairs = [(now, before[now.example_id]) for now in outcomes.get("adapter", ()) if now.example_id in before]
    found = (_difference(metric, pairs) for metric in metrics)
    return [difference for difference in found if difference is not None]


def _difference(metric: str, pairs: Sequence[tuple[Outcome, Outcome]]) -> RuntimeDifference | None:
    both = [(now.scores, then.scores) for now, then in pairs if metric in now.scores and metric in then.scores]
    if not both:
        return None
    ours, theirs = _column(metric, [now for now, _ in both]), _column(metric, [then for _, then in both])
    compared = noninferior(ours, theirs, margin=1.0, confidence=0.975)  # one-sided bounds, so together 95 %
    return RuntimeDifference(
        metric=metric,
        n=compared.n,
        phone=sum(ours) / compared.n,
        transformers=sum(theirs) / compared.n,
        difference=compared.difference,
        low=compared.low,
        high=compared.high,
        lost=sum(our < their for our, their in zip(ours, theirs, strict=True)),
        gained=sum(our > their for our, their in zip(ours, theirs, strict=True)),
    )


def _column(metric: str, scores: Sequence[Mapping[str, float]]) -> list[float]:
    return [row[metric] for row in scores]
