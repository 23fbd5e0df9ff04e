"""What a verdict follows from, as files of the bundle: the decision names each with its digest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.exports import BudgetReport
from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import EvaluationReport, GateDecision, ParityReport, SafetyReport, SetUse
from pocketloop.evaluation.gates import decide
from pocketloop.evaluation.suite import Outcomes, read_outcomes, write_outcomes

OUTCOMES = "outcomes"
"""The bundle's folder of per-item outcomes, `SET.MODEL.jsonl`: ids, scores and classes, never text."""

Report = TypeVar("Report", bound=BaseModel)


@dataclass(frozen=True)
class Evidence:
    """Everything that `decide` is given; `outcomes` are by evaluation set, the main one first."""

    recipe: Recipe
    evaluation: EvaluationReport
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    parity: ParityReport | None = None
    safety: SafetyReport | None = None
    budget: BudgetReport | None = None
    uses: Sequence[SetUse] = ()

    @property
    def main(self) -> Outcomes:
        """Outcomes of the set on which the gates decide: the first that was measured."""
        first = self.evaluation.results[0].set if self.evaluation.results else ""
        return self.outcomes.get(first, {})

    def decision(self) -> GateDecision:
        """What follows from this, with no word of where it is kept."""
        return decide(self.recipe, self.evaluation, self.main, self.parity, self.safety, self.budget, uses=self.uses)


def write_evidence(folder: Path, evidence: Evidence) -> dict[str, str]:
    """Write the evidence into a bundle's folder; sha256 of each file, by its name there."""
    reports: dict[str, BaseModel | list[dict[str, object]] | None] = {
        "recipe.json": evidence.recipe,
        "evaluation.json": evidence.evaluation,
        "parity.json": evidence.parity,
        "safety.json": evidence.safety,
        "budget.json": evidence.budget,
        "uses.json": [use.model_dump(mode="json") for use in evidence.uses],
    }
    names = []
    for name, report in reports.items():
        if report is not None:
            write_json(folder / name, report)
            names.append(name)
    for set_name, models in evidence.outcomes.items():
        for model, outcomes in models.items():
            name = f"{OUTCOMES}/{set_name}.{model}.jsonl"
            write_outcomes(folder / name, outcomes)
            names.append(name)
    return {name: sha256_file(folder / name) for name in sorted(names)}


def read_evidence(folder: Path) -> Evidence:
    """What `write_evidence` wrote.

    Raises:
        DataError: a file of it is absent or cannot be read.
    """
    outcomes: dict[str, dict[str, list[object]]] = {}
    for path in sorted((folder / OUTCOMES).glob("*.jsonl")):
        set_name, model = path.name.removesuffix(".jsonl").rsplit(".", 1)
        try:
            outcomes.setdefault(set_name, {})[model] = list(read_outcomes(path))
        except (ValueError, ValidationError):
            raise DataError(f"{path}: a line of it is no outcome that can be read") from None
    recipe, evaluation = _read(folder / "recipe.json", Recipe), _read(folder / "evaluation.json", EvaluationReport)
    if recipe is None or evaluation is None:
        raise DataError(f"{folder}: recipe.json or evaluation.json is absent: nothing can be recomputed")
    uses = folder / "uses.json"
    return Evidence(
        recipe=recipe,
        evaluation=evaluation,
        outcomes=outcomes,  # type: ignore[arg-type]
        parity=_read(folder / "parity.json", ParityReport),
        safety=_read(folder / "safety.json", SafetyReport),
        budget=_read(folder / "budget.json", BudgetReport),
        uses=TypeAdapter(list[SetUse]).validate_json(uses.read_bytes()) if uses.is_file() else (),
    )


def changed_evidence(folder: Path, decision: GateDecision) -> list[str]:
    """Names of the evidence's files that are absent, were changed, or were added since the decision was made."""
    named = decision.evidence
    gone = [name for name, digest in named.items() if _digest(folder / name) != digest]
    there = {path.relative_to(folder).as_posix() for path in (folder / OUTCOMES).glob("*")}
    return sorted([*gone, *(there - set(named))])


def _digest(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


def _read(path: Path, model: type[Report]) -> Report | None:
    if not path.is_file():
        return None
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: `{where}`: {first['msg']}: written by another version, or by hand") from None
