"""What every training stage is given, and what it has in common with the others."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketloop.contracts.events import Conversation
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.reports import Curve, StageTraining
from pocketloop.contracts.training import Checkpoints, Schedule, StageName
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.hardware import without_input_casts
from pocketloop.training.progress import OnProgress, make_progress_callback, print_progress
from pocketloop.training.tokens import SequenceEncoder

_LOGGED_POINTS = 100

Judge = Callable[[Sequence[Conversation], Sequence[str]], list[float]]
"""Rates answers to prompts, each in [0, 1]: a language model's verdicts as reward (RLAIF)."""


@dataclass(frozen=True)
class Split:
    """What one split of a release offers to training: right answers, pairs, and single rated answers."""

    examples: list[Example] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    rated: list[RatedAnswer] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingData:
    """What is learnt from, and what it is checked on while training; the test split is never here."""

    train: Split
    validation: Split = field(default_factory=Split)


@dataclass
class StageRun:
    """A stage about to run. It trains the adapter `default` of `model` in place.

    `folder` is its own and survives a killed run; `before` holds the adapter as it was before this stage, which is the
    reference model; `reward_model` is the folder of the newest reward stage.
    """

    name: StageName
    number: int
    config: Schedule
    base: BaseConfig
    task: TaskSpec
    data: TrainingData
    model: Any
    tokenizer: Any
    half: bool
    seed: int
    folder: Path
    before: Path
    reward_model: Path | None = None
    judge: Judge | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    on_progress: OnProgress = print_progress
    every_seconds: float = 5.0
    tokens: int = 0
    """Tokens that went through the trained model so far, padding aside; the stage's trainer counts them."""
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Where its settings stand in the recipe."""
        return f"train.stages.{self.number}.{self.name}"

    def encoder(self) -> SequenceEncoder:
        """Encodes the task's examples for this stage."""
        return SequenceEncoder(self.tokenizer, self.task, self.config.max_length)


def trainer_arguments(stage: StageRun, examples: int, evaluate: bool) -> dict[str, Any]:
    """The arguments that all of trl's trainers take, from the stage's schedule."""
    import torch

    config = stage.config
    steps = max(1, round(examples / config.batch_size * config.epochs))
    return {
        "output_dir": str(stage.folder / "checkpoints"),
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "warmup_steps": min(config.warmup, 0.99),  # below 1: a share of all steps
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": 2 * config.batch_size,
        "gradient_checkpointing": False,
        "bf16": stage.half,
        "use_cpu": not torch.cuda.is_available(),
        "eval_strategy": "epoch" if evaluate else "no",
        "save_strategy": "no",
        "logging_steps": max(1, steps // _LOGGED_POINTS),
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "seed": stage.seed,
        "data_seed": stage.seed,
    }


def run_trainer(stage: StageRun, trainer: Any, examples: int, curves: dict[str, str]) -> StageTraining:
    """Run a trl trainer to its end; `curves` maps our names to the keys of its log (`{"loss": "loss"}`)."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(
        make_progress_callback(stage.key, lambda: stage.tokens, stage.on_progress, stage.every_seconds)
    )
    started = time.perf_counter()
    with without_input_casts(stage.model, active=stage.half):
        trainer.train()
    seconds = time.perf_counter() - started
    history = trainer.state.log_history
    return StageTraining(
        stage=stage.name,
        steps=trainer.state.global_step,
        examples=examples,
        tokens=stage.tokens,
        seconds=seconds,
        curves={name: points for name, key in curves.items() if (points := _curve(history, key))},
        left_out=stage.left_out,
        best_step=trainer.state.global_step,
        peak_memory_mb=peak_memory_mb(),
    )


def _curve(history: list[dict[str, Any]], key: str) -> Curve:
    return [(int(entry["step"]), float(entry[key])) for entry in history if key in entry]


def peak_memory_mb() -> float:
    """The most memory (10^6 bytes) held so far: of the accelerator, or of this process where there is none."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
