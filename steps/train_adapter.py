"""Train: the recipe's stages on the release's training split."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

from zenml import step

from pocketloop.contracts.files import Folder, sha256_tree
from pocketloop.contracts.home import Home, project_root
from pocketloop.contracts.loading import load_catalogue, load_rubric
from pocketloop.contracts.recipe import BaseConfig, Recipe, SafetyConfig
from pocketloop.contracts.reports import StageTraining, TrainReport
from pocketloop.contracts.training import GroupConfig
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.stage import Judge
from steps.champion import Champion, ChampionRef, open_champion
from steps.stage import BY_CONTENT, library_digest, stage
from steps.training_data import training_data
from steps.training_work import training_work


def training_view(recipe: Recipe) -> Recipe:
    """What of the recipe decides what training gives: `label` names the judge, where one rewards.

    Of `safety` only the canaries: another bound must not train anew.
    """
    view = recipe.view("prompt", "train", *(["label"] if _asks_judge(recipe) else []))
    return view.model_copy(update={"safety": SafetyConfig(canaries=recipe.safety.canaries)})


def teachers_read(recipe: Recipe) -> list[str]:
    """Digests of the adapters in folders that the recipe's teachers wear: a folder may change under its name."""
    named = [stage.distill.teacher_adapter for stage in recipe.train.stages if stage.distill]
    folders = [project_root() / name for name in named if name]
    return [sha256_tree(folder) for folder in folders if folder.is_dir()]


@step(cache_policy=BY_CONTENT, experiment_tracker=True)
def train_adapter(
    recipe: Recipe, base: BaseConfig, dataset: Folder, start: ChampionRef, teachers: list[str]
) -> tuple[Annotated[Folder, "adapter"], Annotated[TrainReport, "train_report"]]:
    """Train from the base on all data, or from the champion `start` on what it has not seen and some that it has.

    `teachers` are digests, which only tell one input from another. A run that was stopped goes on where it stood. The
    curves, the settings and what the machine did go to the run's page in MLflow.
    """
    import mlflow

    from pocketloop.export.base import weights_digest
    from pocketloop.models.bases import base_folder
    from pocketloop.registry.mlflow_store import log_training
    from pocketloop.training.run import train_adapter as train

    home = Home()
    with stage("train") as this, ExitStack() as held:
        task = TaskSpec.of(recipe, load_catalogue(recipe))
        champion: Champion | None = None
        if start.version:
            champion = held.enter_context(open_champion(home, recipe, base, start))
        learnt = training_data(dataset, recipe, task, champion)
        print(f"  {learnt.summary}", flush=True)
        inputs = [recipe.digest, base.model_dump_json(), weights_digest(base_folder(base)), dataset.digest]
        inputs += [start.digest, *teachers, library_digest()]
        work = held.enter_context(training_work(home, recipe.adapter, *inputs))
        held.enter_context(_watched(recipe))
        report = train(
            base,
            learnt.data,
            task,
            recipe.train,
            this.scratch / "adapter",
            work,
            on_progress=lambda progress: print(f"  {progress}", flush=True),
            start=champion.adapter if champion else None,
            judge=held.enter_context(opened_judge(home, recipe, task)),
            every_seconds=15,
        )
        report = report.model_copy(
            update={"start": start.version or "base", "replayed": learnt.replayed, "canaries": learnt.canaries}
        )
        if run := mlflow.active_run():
            log_training(home, run.info.run_id, report)
        this.done(
            "; ".join(map(_summary, report.stages)),
            steps=report.steps,
            tokens=report.tokens,
            trainable=report.trainable,
            start=report.start,
            replayed=report.replayed,
            canaries=report.canaries,
        )
        return Folder.of(this.scratch / "adapter"), report


def _asks_judge(recipe: Recipe) -> bool:
    return any(isinstance(s.config, GroupConfig) and s.config.reward == "judge" for s in recipe.train.stages)


@contextmanager
def opened_judge(home: Home, recipe: Recipe, task: TaskSpec) -> Iterator[Judge | None]:
    """The language model that rewards answers, where a stage asks for one and the recipe names one."""
    if not _asks_judge(recipe) or recipe.label.llm is None:
        yield None
        return
    from pocketloop.labeling.answer_cache import AnswerCache
    from pocketloop.labeling.reward import JudgeReward

    with AnswerCache(home.cache / "judge") as answers:
        yield JudgeReward(recipe.label.llm, load_rubric(recipe.label.llm.rubric), task, answers)


def _summary(stage: StageTraining) -> str:
    ends = [(name.replace("_", " "), stage.last(name)) for name in ("loss", "validation_loss", "reward", "kl")]
    found = "".join(f", {name} {value:.3f}" for name, value in ends if value is not None)
    speed = stage.tokens / max(stage.seconds, 1e-9)
    return f"{stage.stage}: {stage.steps} steps on {stage.examples} examples, {speed:.0f} tokens/s{found}"


@contextmanager
def _watched(recipe: Recipe) -> Iterator[None]:
    """Write the settings to the run's page in MLflow, and what processor, memory, disk and GPU do meanwhile."""
    import logging

    import mlflow
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    run = mlflow.active_run()
    if run is None:  # the step's function called by itself
        yield
        return
    mlflow.log_params(_settings(recipe.train.model_dump(mode="json"), "train"))
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it narrates its start and its end
    monitor = SystemMetricsMonitor(run.info.run_id, resume_logging=True)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def _settings(value: Any, key: str) -> dict[str, str]:
    """Each value by the key under which the recipe has it, as `--set` takes it: `train.stages.0.sft.epochs`."""
    if isinstance(value, dict) and value:
        return {name: text for part in value for name, text in _settings(value[part], f"{key}.{part}").items()}
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return {name: text for at, part in enumerate(value) for name, text in _settings(part, f"{key}.{at}").items()}
    return {key: str(value)}
