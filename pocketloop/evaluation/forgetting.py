"""What a candidate that went on from the champion can no longer do: both on the same items, one by one."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from pocketloop.evaluation.statistics import mcnemar_exact, noninferior
from pocketloop.evaluation.suite import Outcome, Outcomes

ALL = "all"
"""Stands for a whole set among its labels."""


class Change(BaseModel):
    """Candidate beside champion on the same items of one label, or of all.

    Of `n` items `lost` were answered worse than before (right before and wrong now, where an answer is one or the
    other) and `gained` better. `difference` of the mean scores is candidate minus champion, with a paired 95 %
    interval; `p` is the exact two-sided McNemar test of lost against gained.
    """

    model_config = ConfigDict(extra="forbid")

    label: str
    n: int
    lost: int
    gained: int
    difference: float
    low: float
    high: float
    p: float


class Forgetting(BaseModel):
    """The changes of one metric on one evaluation set: over all items, and by label, the most forgotten one first."""

    model_config = ConfigDict(extra="forbid")

    set: str
    metric: str
    total: Change
    labels: list[Change]


def forgotten(sets: Mapping[str, Outcomes], metric: str) -> list[Forgetting]:
    """Compare `adapter` with `champion` on every set that both were measured on."""
    found = []
    for name, outcomes in sets.items():
        before = {outcome.example_id: outcome for outcome in outcomes.get("champion", [])}
        pairs = [(now, before[now.example_id]) for now in outcomes.get("adapter", []) if now.example_id in before]
        if not pairs:
            continue
        by_label: dict[str, list[tuple[Outcome, Outcome]]] = {}
        for pair in pairs:
            by_label.setdefault(pair[0].reference, []).append(pair)
        labels = [_change(label, members, metric) for label, members in by_label.items()]
        labels.sort(key=lambda change: (change.difference, change.gained - change.lost, change.label))
        found.append(Forgetting(set=name, metric=metric, total=_change(ALL, pairs, metric), labels=labels))
    return found


def _change(label: str, pairs: Sequence[tuple[Outcome, Outcome]], metric: str) -> Change:
    now = [pair[0].scores[metric] for pair in pairs]
    before = [pair[1].scores[metric] for pair in pairs]
    compared = noninferior(now, before, margin=1.0, confidence=0.975)  # one-sided bounds, so together 95 %
    lost = sum(ours < theirs for ours, theirs in zip(now, before, strict=True))
    gained = sum(ours > theirs for ours, theirs in zip(now, before, strict=True))
    return Change(
        label=label,
        n=compared.n,
        lost=lost,
        gained=gained,
        difference=compared.difference,
        low=compared.low,
        high=compared.high,
        p=mcnemar_exact(lost, gained),
    )
