"""Judge: the gates' verdict, and the bundle of files, report and card that a reviewer will see."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example
from pocketloop.contracts.exports import BudgetReport
from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    BaseManifest,
    DatasetRelease,
    EvaluationReport,
    GateDecision,
    ParityReport,
    SafetyReport,
    SetUses,
    TrainReport,
)
from pocketloop.contracts.rollout import RolloutPlan
from pocketloop.evaluation.regressions import Regression
from pocketloop.evaluation.suite import Outcomes
from steps.champion import ChampionRef
from steps.examples import evaluation_sets
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT)
def judge(
    recipe: Recipe,
    base_manifest: BaseManifest,
    release: DatasetRelease,
    train_report: TrainReport,
    adapter: Folder,
    exported: Folder,
    outcomes: Folder,
    evaluation_report: EvaluationReport,
    parity_report: ParityReport,
    budget_report: BudgetReport,
    safety_report: SafetyReport,
    champion: ChampionRef,
    plan: RolloutPlan,
    set_uses: SetUses,
    dataset: Folder,
) -> tuple[Annotated[Folder, "bundle"], Annotated[GateDecision, "decision"]]:
    """Decide, and write everything that is registered; a candidate that fails is kept too, with its verdict."""
    from pocketloop.evaluation.bundle import write_bundle
    from pocketloop.evaluation.evidence import Evidence, write_evidence
    from pocketloop.evaluation.findings import Findings
    from pocketloop.evaluation.forgetting import forgotten
    from pocketloop.evaluation.suite import Outcome, read_outcomes
    from pocketloop.export.gguf_files import exported_file, merged_because

    with stage("judge") as this:
        by_set: dict[str, dict[str, list[Outcome]]] = {result.set: {} for result in evaluation_report.results}
        for result in evaluation_report.results:
            path = outcomes / f"{result.set}.{result.model}.jsonl"
            by_set[result.set][result.model] = read_outcomes(path) if path.is_file() else []
        file = exported_file(exported.path)
        evidence = Evidence(
            recipe=recipe,
            evaluation=evaluation_report,
            outcomes=by_set,
            parity=parity_report,
            safety=safety_report,
            budget=budget_report,
            uses=set_uses.uses,
        )
        named = write_evidence(this.scratch, evidence)
        decision = evidence.decision().model_copy(update={"evidence": named})
        findings = Findings(
            recipe=recipe,
            base=base_manifest,
            release=release,
            training=train_report,
            evaluation=evaluation_report,
            parity=parity_report,
            budget=budget_report,
            safety=safety_report,
            decision=decision,
            sizes={file.name: file.stat().st_size},
            outcomes=evidence.main,
            uses=set_uses.uses,
            champion=champion.version,
            rollout=plan,
            merged=merged_because(exported.path),
        )
        if champion.version:
            findings = replace(findings, regressions=_regressions(recipe, evidence.main, findings.main_metric, dataset))
        if champion.version and train_report.start == champion.version:
            findings = replace(findings, forgetting=forgotten(by_set, findings.main_metric))
        write_bundle(this.scratch, findings, exported.path, adapter.path, load_catalogue(recipe), datetime.now(UTC))
        counts = {
            verdict: sum(g.verdict == verdict for g in decision.gates) for verdict in ("pass", "inconclusive", "fail")
        }
        this.done(
            f"{decision.verdict.upper()}: " + ", ".join(f"{n} gates {name}" for name, n in counts.items() if n),
            verdict=decision.verdict,
        )
        return Folder.of(this.scratch), decision


def _regressions(recipe: Recipe, outcomes: Outcomes, metric: str, dataset: Folder) -> list[Regression]:
    """What the champion answers better, as scrubbed examples of the first evaluation set."""
    from pocketloop.evaluation.regressions import regressions
    from pocketloop.privacy.pseudonyms import load_key
    from pocketloop.privacy.scrubber import Scrubber, slots_of, vocabulary_of
    from pocketloop.privacy.sure import scrub_conversations

    examples = {example.example_id: example for example in next(iter(evaluation_sets(dataset, recipe).values()))}

    def scrubbed(chosen: Sequence[Example]) -> list[list[Message] | None]:
        catalogue = load_catalogue(recipe)
        scrubber = Scrubber(recipe.scrub, load_key(Home()), slots_of(catalogue), vocabulary_of(catalogue))
        return scrub_conversations(scrubber, [example.messages for example in chosen])

    return regressions(outcomes, metric, examples, scrubbed)
