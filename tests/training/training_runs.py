"""Small training runs on random models, for the tests of training."""

from pathlib import Path
from typing import Any

from tinymodels import save_tiny_model

from pocketloop.contracts.examples import Example, IntentRow, example_from_row
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.reports import TrainReport
from pocketloop.contracts.training import TrainConfig
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, TrainingData

INTENT = TaskSpec("intent", None)
WORDS = {"timer": "set_timer", "alarm": "set_alarm", "music": "play_music", "weather": "get_weather"}


def tiny_base(folder: Path, architecture: Any = "gemma3", **model: Any) -> BaseConfig:
    """A random model of two layers as a base."""
    settings = {"layers": 2, "initializer_range": 0.05, **model}
    return BaseConfig(
        base="tiny-test", source=str(save_tiny_model(folder, architecture, **settings)), architecture=architecture
    )


def examples(count: int, offset: int = 0) -> list[Example]:
    """Utterances whose one telling word gives the label."""
    words = list(WORDS)
    rows = [(f"{words[i % 4]} please {i // 4}", WORDS[words[i % 4]]) for i in range(offset, offset + count)]
    return [example_from_row(IntentRow(input=said, output=label), source="test") for said, label in rows]


def settings(lora: dict[str, Any] | None = None, **sft: Any) -> TrainConfig:
    """One supervised stage, fast enough for a test."""
    stage = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 8, "max_length": 64, **sft}
    shape = {"r": 8, "alpha": 16, "dropout": 0.0, **(lora or {})}
    return TrainConfig.model_validate({"lora": shape, "stages": [{"sft": stage}], "seed": 3})


def train(base: BaseConfig, out: Path, training: TrainConfig, count: int = 32, **more: Any) -> TrainReport:
    """Train on `count` examples, with eight held out."""
    return learn(base, examples(count), examples(8, offset=count), training, out, **more)


def learn(
    base: BaseConfig, rows: list[Example], held_out: list[Example], training: TrainConfig, out: Path, **more: Any
) -> TrainReport:
    """Train on `rows`, with the work folder beside `out`."""
    data = TrainingData(Split(rows), Split(held_out))
    return train_adapter(base, data, INTENT, training, out, out.with_name(f"{out.name}-work"), **more)
