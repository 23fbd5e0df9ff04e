"""Train: the recipe's stages on the release's training split."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import BaseConfig, Recipe
from pocketloop.contracts.reports import TrainReport
from steps.examples import split_examples
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT, experiment_tracker=True)
def train_adapter(
    recipe: Recipe, base: BaseConfig, dataset: Folder
) -> tuple[Annotated[Folder, "adapter"], Annotated[TrainReport, "train_report"]]:
    """Train from the base on all data; the loss curves go to the run's page in MLflow."""
    import mlflow

    from pocketloop.registry.mlflow_store import log_training
    from pocketloop.tasks.tasks import TaskSpec
    from pocketloop.training.run import train_adapter as train
    from pocketloop.training.stage import Split, TrainingData

    with stage("train") as this:
        task = TaskSpec.of(recipe, load_catalogue(recipe))
        data = TrainingData(
            Split(split_examples(dataset, "train", recipe)), Split(split_examples(dataset, "validation", recipe))
        )
        report = train(
            base,
            data,
            task,
            recipe.train,
            this.scratch / "adapter",
            this.scratch / "work",
            on_progress=lambda progress: print(f"  {progress}", flush=True),
            every_seconds=15,
        )
        if run := mlflow.active_run():
            log_training(Home(), run.info.run_id, report)
        last = report.stages[-1]
        held_out = last.last("validation_loss")
        this.done(
            f"{report.steps} steps on {last.examples} examples, {report.tokens_per_second:.0f} tokens/s, "
            f"loss {last.last('loss'):.3f}" + ("" if held_out is None else f", held-out loss {held_out:.3f}"),
            steps=report.steps,
            tokens=report.tokens,
            trainable=report.trainable,
        )
        return Folder.of(this.scratch / "adapter"), report
