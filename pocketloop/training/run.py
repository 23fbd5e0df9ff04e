"""Training an adapter: the recipe's stages one after the other on one adapter, each going on from the one before."""

from collections.abc import Callable
from pathlib import Path

from pocketloop.contracts.files import write_json
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.reports import StageTraining, TrainReport
from pocketloop.contracts.training import StageName, TrainConfig
from pocketloop.models.bases import load_base
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.adapters import new_adapter, open_adapter, save_adapter
from pocketloop.training.hardware import computes_in_bfloat16, quiet_libraries, use_cores
from pocketloop.training.progress import OnProgress, print_progress
from pocketloop.training.sft import train_sft
from pocketloop.training.stage import Judge, StageRun, TrainingData

STAGES: dict[StageName, Callable[[StageRun], StageTraining]] = {"sft": train_sft}


def train_adapter(
    base: BaseConfig,
    data: TrainingData,
    task: TaskSpec,
    training: TrainConfig,
    out: Path,
    work: Path,
    on_progress: OnProgress = print_progress,
    *,
    start: Path | None = None,
    judge: Judge | None = None,
    every_seconds: float = 5.0,
) -> TrainReport:
    """Train an adapter for `task` and write it to the folder `out`; `start` is the adapter to go on from.

    The folder holds `adapter_model.safetensors` (float32) and `adapter_config.json`, which names the base and no path;
    equal input gives equal bytes on the same kind of machine with the same number of threads. `work` keeps finished
    stages and checkpoints: a run that was killed goes on from there. `on_progress` is called at most every
    `every_seconds` seconds.

    Raises:
        DataError: a stage has nothing to train on.
        ModelError: the base cannot be loaded, or a loss is no longer a number.
    """
    from transformers import set_seed

    reports: list[StageTraining] = []
    with quiet_libraries():
        half = computes_in_bfloat16()
        model, tokenizer = load_base(base, "bfloat16" if half else "float32")
        use_cores(model.config.get_text_config().hidden_size)
        set_seed(training.seed)
        model = open_adapter(model, start) if start else new_adapter(model, training.lora)
        reward_model: Path | None = None
        for number, entry in enumerate(training.stages):
            folder = work / f"{number}-{entry.name}"
            save_adapter(model, folder / "before", base.base)
            stage = StageRun(
                name=entry.name,
                number=number,
                config=entry.config,
                base=base,
                task=task,
                data=data,
                model=model,
                tokenizer=tokenizer,
                half=half,
                seed=training.seed,
                folder=folder,
                before=folder / "before",
                reward_model=reward_model,
                judge=judge,
                checkpoints=training.checkpoints,
                on_progress=on_progress,
                every_seconds=every_seconds,
            )
            reports.append(STAGES[entry.name](stage))
            write_json(folder / "report.json", reports[-1].model_dump(mode="json"))
            if entry.name == "reward":
                reward_model = folder / "reward_model"
        save_adapter(model, out, base.base)
    parameters = list(model.parameters())
    return TrainReport(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        stages=reports,
    )
