"""Everything that is known of a candidate when it is judged, and the tables that both the report and the card show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pocketloop.contracts.exports import BudgetReport
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    BaseManifest,
    DatasetRelease,
    EvaluationReport,
    GateDecision,
    ParityReport,
    SafetyReport,
    SetResult,
    SetUse,
    SliceResult,
    TrainReport,
)
from pocketloop.contracts.rollout import RolloutPlan
from pocketloop.evaluation.forgetting import Forgetting
from pocketloop.evaluation.regressions import Regression
from pocketloop.evaluation.runtimes import RuntimeDifference, runtime_differences
from pocketloop.evaluation.suite import Outcomes
from pocketloop.tasks.tasks import TaskSpec

MODELS = {
    "adapter": "the candidate, exported, in llama.cpp: what a phone runs",
    "champion": "what the fleet's stable channel serves now, in llama.cpp",
    "base": "the base without an adapter, in llama.cpp",
    "transformers": "the candidate before export, in transformers",
}
"""What each model's name in a report stands for, in the order in which they are shown."""


@dataclass(frozen=True)
class Findings:
    """A candidate's reports. `outcomes` are those of the first set; `sizes` are bytes of each file that is registered.

    `champion` is the version that stands beside the candidate, empty where there is none yet.
    """

    recipe: Recipe
    base: BaseManifest
    release: DatasetRelease
    training: TrainReport
    evaluation: EvaluationReport
    parity: ParityReport
    safety: SafetyReport
    decision: GateDecision
    sizes: Mapping[str, int]
    outcomes: Outcomes = field(default_factory=dict)
    champion: str = ""
    rollout: RolloutPlan | None = None
    """What the recipe's ladder means for this fleet; `None` where its size is unknown."""
    budget: BudgetReport | None = None
    """What the exported files cost a phone."""
    merged: Sequence[str] = ()
    """Why base and adapter had to become one file; empty where the adapter has its own."""
    uses: Sequence[SetUse] = ()
    """How often each evaluation set has decided before."""
    regressions: Sequence[Regression] = ()
    """Items that the champion answers better, scrubbed."""
    forgetting: Sequence[Forgetting] = ()
    """Candidate and champion item by item, where training went on from the champion."""

    @property
    def sets(self) -> dict[str, list[SetResult]]:
        """Results by set, the main one first, models in the order of `MODELS`."""
        rank = {name: place for place, name in enumerate(MODELS)}
        found: dict[str, list[SetResult]] = {}
        for result in self.evaluation.results:
            found.setdefault(result.set, []).append(result)
        for results in found.values():
            results.sort(key=lambda result: rank.get(result.model, len(rank)))
        return found

    @property
    def runtimes(self) -> list[RuntimeDifference]:
        """What the exported files score beside transformers, item by item, on the first set."""
        main = next(iter(self.sets.values()), [])
        return runtime_differences(self.outcomes, list(dict.fromkeys(n for result in main for n in result.metrics)))

    @property
    def main_metric(self) -> str:
        """The metric by which the adapter must beat its base."""
        return TaskSpec.of(self.recipe, None).metrics[0]


@dataclass(frozen=True)
class ClassRow:
    """One label or function: how many items, each model's mean main metric, and the most frequent wrong answer."""

    name: str
    n: int
    scores: dict[str, float]
    mistaken_for: str
    mistakes: int


def class_rows(findings: Findings) -> list[ClassRow]:
    """Per-class results on the first set, worst first."""
    sums: dict[str, dict[str, list[float]]] = {}
    for model, outcomes in findings.outcomes.items():
        for outcome in outcomes:
            by_model = sums.setdefault(outcome.reference, {})
            by_model.setdefault(model, []).append(outcome.scores[findings.main_metric])
    rows = []
    for name, by_model in sums.items():
        answers = findings.evaluation.confusion.get(name, {})
        wrong = sorted((-n, answer) for answer, n in answers.items() if answer != name)
        scores = {model: sum(values) / len(values) for model, values in by_model.items()}
        n = len(by_model.get("adapter", next(iter(by_model.values()))))
        rows.append(ClassRow(name, n, scores, wrong[0][1] if wrong else "", -wrong[0][0] if wrong else 0))
    return sorted(rows, key=lambda row: (row.scores.get("adapter", 0.0), row.name))


@dataclass(frozen=True)
class SliceRow:
    """One slice of the first set: each model's result on it, the candidate's among them."""

    name: str
    n: int
    models: dict[str, SliceResult]

    @property
    def lost(self) -> float:
        """By how much the candidate lies below the champion; negative where it is better, 0 without one."""
        champion = self.models.get("champion")
        return champion.estimate.value - self.models["adapter"].estimate.value if champion else 0.0


def slice_rows(findings: Findings) -> list[SliceRow]:
    """The slices of the first set, the candidate's worst first."""
    results = findings.evaluation.results
    found: dict[str, dict[str, SliceResult]] = {}
    for one in findings.evaluation.slices:
        if results and one.set == results[0].set:
            found.setdefault(one.name, {})[one.model] = one
    rows = [SliceRow(name, by["adapter"].estimate.n, by) for name, by in found.items() if "adapter" in by]
    return sorted(rows, key=lambda row: (row.models["adapter"].estimate.value, -row.n, row.name))
