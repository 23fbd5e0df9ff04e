"""Training an adapter: the recipe's stages one after the other on one adapter, each going on from the one before."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

from pocketloop.contracts.files import canonical_json, sha256_file, sha256_text, sha256_tree, write_json
from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_base_config
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.reports import StageTraining, TrainReport
from pocketloop.contracts.training import DistillConfig, Schedule, StageName, TrainConfig
from pocketloop.models.bases import base_folder, load_base
from pocketloop.models.chat import load_tokenizer
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.adalora import check_first_stage, fold, is_adalora
from pocketloop.training.adapters import hide_quantization, new_adapter, open_adapter, save_adapter
from pocketloop.training.admission import choose_gradient_checkpointing
from pocketloop.training.check import check_training
from pocketloop.training.distill import train_distilled
from pocketloop.training.dpo import train_dpo
from pocketloop.training.group import train_group
from pocketloop.training.hardware import computes_in_bfloat16, quiet_libraries, use_cores
from pocketloop.training.kto import train_kto
from pocketloop.training.launch import launch
from pocketloop.training.ppo import train_ppo
from pocketloop.training.processes import is_first, process_count, wait_for_all
from pocketloop.training.progress import OnProgress, Progress, print_progress
from pocketloop.training.reward import train_reward
from pocketloop.training.sft import train_sft
from pocketloop.training.stage import Judge, Split, StageRun, TrainingData

STAGES: dict[StageName, Callable[[StageRun], StageTraining]] = {
    "sft": train_sft,
    "dpo": train_dpo,
    "kto": train_kto,
    "grpo": train_group,
    "rloo": train_group,
    "ppo": train_ppo,
    "reward": train_reward,
    "distill": train_distilled,
}


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
    stages and checkpoints: a run that was killed goes on from there; what other input left in it is discarded.
    `on_progress` is called at most every `every_seconds` seconds.

    Raises:
        ConfigError: the recipe asks for what the base does not have.
        DataError: a stage has nothing to train on.
        ModelError: the base cannot be loaded, does not fit this machine, or a loss is no longer a number.
        TrainingInterrupted: SIGTERM came; what was done is kept in `work`.
    """
    from transformers import set_seed

    with quiet_libraries():
        tokenizer = load_tokenizer(base_folder(base), base.chat_template)
        if process_count() == 1:  # whoever launched several has checked
            check_first_stage(training)
            check_training(base, tokenizer, data, task, training, judge)
        checkpointing = choose_gradient_checkpointing(base, tokenizer, data, task, training)
        if training.resources.processes > process_count():
            return launch(base, data, task, training, out, work, on_progress, start=start, every_seconds=every_seconds)
        _claim(work, _fingerprint(base, data, task, training, start))
        folders = [work / f"{number}-{entry.name}" for number, entry in enumerate(training.stages)]
        reports: list[StageTraining] = []
        half = computes_in_bfloat16()
        model, _ = load_base(base, "bfloat16" if half else "float32", four_bit=training.lora.method == "qlora")
        use_cores(model.config.get_text_config().hidden_size)
        set_seed(training.seed)
        finished = sum(1 for folder in folders if (folder / "report.json").is_file())
        opened = folders[finished - 1] / "after" if finished else start
        model = open_adapter(model, opened) if opened else new_adapter(model, training.lora)
        reward_model: Path | None = None
        for number, (entry, folder) in enumerate(zip(training.stages, folders, strict=True)):
            if entry.name == "reward":
                reward_model = folder / "reward_model"
            if number < finished:
                reports.append(_read_report(folder))
                on_progress(_note(reports[-1], f"train.stages.{number}.{entry.name}: finished before, kept"))
                continue
            hide_quantization(model)
            save_adapter(model, folder / "before", base.base)
            set_seed(training.seed + number)
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
                seed=training.seed + number,
                folder=folder,
                before=folder / "before",
                reward_model=reward_model,
                judge=judge,
                lora=training.lora,
                gradient_checkpointing=checkpointing[number],
                checkpoints=training.checkpoints,
                on_progress=on_progress,
                every_seconds=every_seconds,
            )
            reports.append(STAGES[entry.name](stage))
            if is_adalora(model) and entry.name != "reward":
                model, ranks = fold(model)
                if is_first():
                    write_json(work / "ranks.json", dict(ranks))
            save_adapter(model, folder / "after", base.base)
            if is_first():
                write_json(folder / "report.json", reports[-1])
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        save_adapter(model, out, base.base)
    trainable, parameters = model.get_nb_trainable_parameters()
    return TrainReport(parameters=parameters, trainable=trainable, stages=reports, ranks=_read_ranks(work))


def _claim(work: Path, fingerprint: str) -> None:
    """Make `work` the place of exactly this input: what another one left is removed."""
    mark = work / "input.json"
    known = mark.is_file() and mark.read_text(encoding="utf-8") == fingerprint
    wait_for_all()  # before the first process writes what the others are reading
    if is_first() and not known:
        if work.is_dir():
            shutil.rmtree(work)
        work.mkdir(parents=True)
        mark.write_text(fingerprint, encoding="utf-8")
    wait_for_all()


def _fingerprint(
    base: BaseConfig, data: TrainingData, task: TaskSpec, training: TrainConfig, start: Path | None
) -> str:
    """Digest of all that decides what is learnt. How often states are saved decides nothing."""
    import peft
    import torch
    import transformers
    import trl

    catalogue = None if task.catalogue is None else task.catalogue.model_dump(mode="json")
    return sha256_text(
        canonical_json(
            {
                "base": base.model_dump(mode="json", exclude={"source", "notes"}),
                "files": _files(base),
                "data": [_digest(data.train), _digest(data.validation)],
                "task": [task.name, catalogue, task.system, task.declare_tools, task.roles],
                "training": training.model_dump(mode="json", exclude={"checkpoints"}),
                "teachers": [_teacher(entry.config) for entry in training.stages if entry.name == "distill"],
                "start": None if start is None else sha256_tree(start),
                "libraries": [library.__version__ for library in (torch, transformers, peft, trl)],
            }
        )
    )


def _files(base: BaseConfig) -> dict[str, str]:
    folder = base_folder(base)
    return {file.name: sha256_file(file) for file in sorted(folder.iterdir()) if file.is_file()}


def _teacher(config: Schedule) -> list[dict[str, str] | str | None]:
    assert isinstance(config, DistillConfig)
    adapter = config.teacher_adapter
    return [_files(load_base_config(config.teacher)), sha256_tree(project_root() / adapter) if adapter else None]


def _digest(split: Split) -> str:
    rows = [row.model_dump_json() for row in (*split.examples, *split.pairs, *split.rated)]
    return sha256_text("\n".join(rows))


def _read_report(folder: Path) -> StageTraining:
    return StageTraining.model_validate_json((folder / "report.json").read_text(encoding="utf-8"))


def _read_ranks(work: Path) -> dict[str, int]:
    file = work / "ranks.json"
    ranks: dict[str, int] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return ranks


def _note(report: StageTraining, note: str) -> Progress:
    return Progress(report.steps, report.steps, math.nan, report.tokens, report.seconds, note=note)
