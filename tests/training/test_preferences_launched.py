"""Preference stages in two real processes, joined by gloo on this machine's processor."""

from pathlib import Path
from typing import Any

import pytest
from preference_runs import pairs, rated
from training_runs import INTENT, tiny_base

from pocketloop.contracts.reports import TrainReport
from pocketloop.contracts.training import TrainConfig
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, TrainingData

DATA = TrainingData(
    Split(pairs=pairs(24), rated=rated(24)), Split(pairs=pairs(6, offset=24), rated=rated(6, offset=24))
)


def train(folder: Path, processes: int, strategy: str = "ddp") -> TrainReport:
    shared = {"epochs": 3, "batch_size": 24, "max_length": 64, "learning_rate": 1e-3}  # all rows make each step
    training = TrainConfig.model_validate(
        {
            "lora": {"r": 4, "dropout": 0.0},
            "stages": [{"reward": shared}, {"dpo": {**shared, "anchor": 0.2}}, {"kto": shared}],
            "resources": {"processes": processes, "strategy": strategy},
        }
    )
    base = tiny_base(folder / "base", "llama")
    quiet: dict[str, Any] = {"on_progress": lambda progress: None}
    return train_adapter(base, DATA, INTENT, training, folder / "out", folder / "work", **quiet)


@pytest.mark.slow
def test_two_processes_learn_preferences_as_one_does(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    alone, together = train(tmp_path / "one", 1), train(tmp_path / "two", 2)
    for one, two in zip(alone.stages, together.stages, strict=True):
        assert (one.steps, one.examples, one.tokens) == (two.steps, two.examples, two.tokens)
        assert {name: estimate.n for name, estimate in one.metrics.items()} == {
            name: estimate.n for name, estimate in two.metrics.items()
        }
        assert [loss for _, loss in one.curves["loss"]] == pytest.approx(
            [loss for _, loss in two.curves["loss"]], abs=2e-3
        )
    ours, theirs = (load_file(tmp_path / name / "out" / "adapter_model.safetensors") for name in ("one", "two"))
    apart = [(ours[name] - theirs[name]).abs().mean().item() for name in ours]
    assert max(apart) < 2e-4  # six steps of 1e-3
