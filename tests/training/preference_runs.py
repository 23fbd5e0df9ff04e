"""Preference pairs and rated answers on which a random model can learn which answer is better."""

from pathlib import Path
from typing import Any

from tinymodels import save_tiny_model
from training_runs import INTENT, WORDS

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import PreferencePair, RatedAnswer
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import Stage, StageName
from pocketloop.models.bases import load_base
from pocketloop.training.adapters import new_adapter, open_adapter, save_adapter
from pocketloop.training.stage import StageRun, TrainingData

LABELS = list(WORDS.values())


def pairs(count: int, offset: int = 0) -> list[PreferencePair]:
    """The right label is better than another one."""
    return [_pair(i, LABELS[i % 4], LABELS[(i + 1 + i // 4 % 3) % 4]) for i in range(offset, offset + count)]


def _pair(i: int, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        pair_id=f"p{i}",
        task="intent",
        source="test",
        group=f"g{i}",
        prompt=[Message(role="user", content=f"{list(WORDS)[i % 4]} please {i // 4}")],
        chosen=Message(role="assistant", content=chosen),
        rejected=Message(role="assistant", content=rejected),
        reason="correction",
    )


def equal_pairs(count: int) -> list[PreferencePair]:
    """Pairs with nothing to choose between."""
    return [_pair(i, LABELS[i % 4], LABELS[i % 4]) for i in range(count)]


def rated(count: int, offset: int = 0) -> list[RatedAnswer]:
    """Two answers in three are right and were found good."""
    return [_rated(i, i % 3 != 0) for i in range(offset, offset + count)]


def _rated(i: int, right: bool) -> RatedAnswer:
    pair = _pair(i, LABELS[i % 4], LABELS[(i + 1 + i // 3 % 3) % 4])  # every label is wrong about as often
    answer = pair.chosen if right else pair.rejected
    return RatedAnswer(
        rated_id=f"r{i}",
        task="intent",
        source="test",
        group=f"g{i}",
        messages=[*pair.prompt, answer],
        desirable=right,
    )


def make_stage(
    folder: Path,
    name: StageName,
    data: TrainingData,
    architecture: Any = "gemma3",
    *,
    start: Path | None = None,
    **settings: Any,
) -> StageRun:
    """A stage on a random model of two layers in `folder`, with an adapter that is not zero, about to run."""
    import torch

    from pocketloop.contracts.training import LoraConfig

    source = folder / "base"
    if not source.exists():
        save_tiny_model(source, architecture, layers=2, initializer_range=0.05)
    base = BaseConfig(base="tiny-test", source=str(source), architecture=architecture)
    model, tokenizer = load_base(base, "float32")
    torch.manual_seed(5)
    lora = LoraConfig(r=4, alpha=8, dropout=0.1)
    model = open_adapter(model, start) if start else new_adapter(model, lora)
    if not start:
        with torch.no_grad():
            for parameter in (p for n, p in model.named_parameters() if "lora_B" in n):
                parameter.normal_(0, 0.02)
    config = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "max_length": 64, **settings}
    place = folder / f"0-{name}"
    save_adapter(model, place / "before", base.base)
    return StageRun(
        name=name,
        number=0,
        config=Stage.model_validate({name: config}).config,
        base=base,
        task=INTENT,
        data=data,
        model=model,
        tokenizer=tokenizer,
        half=False,
        seed=3,
        folder=place,
        before=place / "before",
        lora=lora,
        on_progress=lambda progress: None,
    )
