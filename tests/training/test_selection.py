from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_runs import WORDS, examples, learn, settings, tiny_base

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.examples import Example, IntentRow, example_from_row
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.models.bases import load_with_adapter
from pocketloop.training.selection import selection_callback_class


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return tiny_base(tmp_path_factory.mktemp("bases") / "llama", "llama")


def contradicting(count: int) -> list[Example]:
    """Held-out data that training drives away from: every word has its neighbour's label."""
    labels = list(WORDS.values())
    rows = [(f"{word} please {i}", labels[(n + 1) % 4]) for i in range(count) for n, word in enumerate(WORDS)]
    return [example_from_row(IntentRow(input=said, output=label), source="test") for said, label in rows]


def test_a_stage_that_gets_no_better_stops_and_the_best_state_is_what_is_kept(base: BaseConfig, tmp_path: Path) -> None:
    training = settings(epochs=60, learning_rate=2e-2, patience=3)
    held_out = contradicting(2)
    (stage,) = learn(base, examples(16), held_out, training, tmp_path / "stopped").stages
    scores = dict(stage.curves["validation_loss"])
    assert stage.steps < 120
    assert stage.best_step == min(scores, key=lambda step: scores[step]) == stage.steps - 3 * 2
    assert stage.stopped.startswith("loss on held-out data got no better in 3 scores after step")
    kept = held_out_loss(base, tmp_path / "stopped", held_out)
    assert kept == pytest.approx(scores[stage.best_step], rel=0.02)  # bfloat16 while training
    assert scores[stage.steps] > 1.1 * kept


def held_out_loss(base: BaseConfig, adapter: Path, rows: list[Example]) -> float:
    """transformers' own loss, example by example, over all answer tokens."""
    import torch
    from training_runs import INTENT

    from pocketloop.training.tokens import SequenceEncoder

    model, tokenizer = load_with_adapter(base, adapter, "float32")
    encoder = SequenceEncoder(tokenizer, INTENT, 64)
    nats, tokens = 0.0, 0
    for example in rows:
        sequence = encoder.encode(example)
        assert sequence is not None
        labels = torch.tensor([sequence.labels])
        count = int((labels != -100).sum())
        with torch.no_grad():
            nats += count * float(model(input_ids=torch.tensor([sequence.input_ids]), labels=labels).loss)
        tokens += count
    return nats / tokens


def test_without_patience_a_stage_runs_to_its_end_and_still_keeps_the_best_state(
    base: BaseConfig, tmp_path: Path
) -> None:
    (stage,) = learn(
        base, examples(16), contradicting(2), settings(epochs=24, learning_rate=2e-2), tmp_path / "adapter"
    ).stages
    assert (stage.steps, stage.stopped) == (48, "")
    assert stage.best_step < 48


def test_without_held_out_data_the_last_state_is_kept(base: BaseConfig, tmp_path: Path) -> None:
    (stage,) = learn(base, examples(16), [], settings(epochs=2, patience=1), tmp_path / "adapter").stages
    assert (stage.steps, stage.best_step, stage.stopped) == (4, 4, "")


def follow(losses: list[float], stage: str = "sft") -> None:
    """Report `losses` as a trainer would."""
    named = SimpleNamespace(name=stage, key=f"train.stages.0.{stage}")
    callback = selection_callback_class()(None, named, "eval_loss", False, lambda step: True)
    for step, loss in enumerate(losses, start=1):
        state = SimpleNamespace(global_step=step, max_steps=len(losses))
        callback.on_log(SimpleNamespace(learning_rate=0.1), state, None, {"loss": loss})


def test_a_loss_that_went_up_and_stays_there_ends_the_stage_and_says_what_to_lower() -> None:
    falling = [3.0, 2.0, 1.0]
    with pytest.raises(
        ModelError, match=r"the loss was 1 and has been above 3 .* lower train.stages.0.sft.learning_ra"
    ):
        follow(falling + [5.0] * 10)
    follow(falling + [5.0] * 9 + [1.0])  # a spike
    follow(falling + [2.9] * 50)  # worse than the best, no worse than the beginning
    follow([0.7, *[0.001, 0.02] * 30])  # noise around nothing
    follow([0.0, -0.1, *[0.5] * 50], "grpo")  # a policy gradient's loss says nothing by its size


def test_the_highest_score_is_kept_where_more_is_better(base: BaseConfig) -> None:
    import torch

    layer = torch.nn.Linear(1, 1, bias=False)
    stage: Any = SimpleNamespace(name="grpo", key="", tokens=0, config=SimpleNamespace(patience=None))
    callback = selection_callback_class()(
        SimpleNamespace(model=layer), stage, "eval_reward", True, lambda step: step > 1
    )
    for step, reward in [(1, 0.9), (2, 0.3), (3, 0.6), (4, 0.5)]:
        with torch.no_grad():
            layer.weight.fill_(step)
        state = SimpleNamespace(global_step=step, max_steps=4)
        callback.on_evaluate(SimpleNamespace(learning_rate=0.1), state, SimpleNamespace(), {"eval_reward": reward})
    assert callback.keep_best(4) == 3  # the first one came before the state was settled
    assert layer.weight.item() == 3
