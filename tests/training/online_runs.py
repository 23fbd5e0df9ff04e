"""A half-learnt adapter on a random model, and stages over it, for the tests of online training."""

from pathlib import Path
from typing import Any

from training_runs import INTENT, examples, settings, tiny_base, train

from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import Stage
from pocketloop.models.bases import load_base
from pocketloop.training.adapters import open_adapter, save_adapter
from pocketloop.training.stage import Split, StageRun, TrainingData


class HalfLearnt:
    """A base, and an adapter over it that gives the right label about half the time."""

    def __init__(self, folder: Path, architecture: str = "gemma3") -> None:
        self.base: BaseConfig = tiny_base(folder / "base", architecture)
        self.adapter = folder / "adapter"
        train(self.base, self.adapter, settings(epochs=2, learning_rate=1e-2, warmup=0.0), 32)

    def stage(self, folder: Path, name: str, **more: Any) -> StageRun:
        """A stage about to run over the adapter, in float32 so that formulas can be checked."""
        fields: dict[str, Any] = {
            key: more.pop(key) for key in ("task", "data", "judge", "reward_model") if key in more
        }
        config = {"max_length": 64, "batch_size": 16, "learning_rate": 1e-3, **more}
        if name != "reward":
            config.setdefault("max_new_tokens", 12)
        entry = Stage.model_validate({name: config})
        model, tokenizer = load_base(self.base, "float32")
        model = open_adapter(model, self.adapter)
        save_adapter(model, folder / "before", self.base.base)
        settings: dict[str, Any] = {"task": INTENT, "data": TrainingData(Split(examples(32))), **fields}
        return StageRun(
            name=entry.name,
            number=1,
            config=entry.config,
            base=self.base,
            model=model,
            tokenizer=tokenizer,
            half=False,
            seed=3,
            folder=folder,
            before=folder / "before",
            on_progress=lambda progress: None,
            **settings,
        )
