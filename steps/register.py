"""Register: the judged bundle becomes a version in MLflow that waits for a reviewer."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import DatasetRelease, EvaluationReport, GateDecision, ReleaseBundle
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT, experiment_tracker=True)
def register(
    recipe: Recipe,
    bundle: Folder,
    evaluation_report: EvaluationReport,
    decision: GateDecision,
    release: DatasetRelease,
) -> Annotated[str, "version"]:
    """Create the version with its card, digests and verdicts; the same bundle is registered once."""
    import mlflow

    from pocketloop.registry.mlflow_store import register_candidate

    with stage("register") as this:
        run = mlflow.active_run()
        assert run is not None, "the stack's experiment tracker starts a run for this step"
        described = ReleaseBundle.model_validate_json((bundle / "bundle.json").read_text(encoding="utf-8"))
        card = (bundle / "card.md").read_text(encoding="utf-8")
        found = register_candidate(
            Home(), run.info.run_id, bundle, described, card, evaluation_report, decision, release
        )
        this.done(f"{found.adapter}@{found.version}", version=found.version)
        return found.version
