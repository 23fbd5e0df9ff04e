from pathlib import Path
from typing import Any

import pytest
from preference_runs import equal_pairs, make_stage, pairs
from tinymodels import ARCHITECTURES, Architecture
from training_runs import INTENT, examples

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import sha256_tree
from pocketloop.contracts.training import TrainConfig
from pocketloop.models.bases import load_with_adapter
from pocketloop.training.adapters import save_adapter
from pocketloop.training.dpo import collate, make_trainer, train_dpo
from pocketloop.training.logprobs import without_dropout
from pocketloop.training.preference_data import EncodedPair, encode_pairs
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, TrainingData

DATA = TrainingData(Split(pairs=pairs(48)), Split(pairs=pairs(12, offset=48)))


def plain_log_prob(model: Any, prompt: list[int], answer: list[int]) -> Any:
    """The answer's log-probability from transformers' own logits, row by row."""
    import torch

    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logits.gather(1, torch.tensor(answer)[:, None]).sum()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_better_answers_become_more_probable_against_the_worse_ones(
    tmp_path: Path, architecture: Architecture
) -> None:
    stage = make_stage(tmp_path, "dpo", DATA, architecture, epochs=5)
    report = train_dpo(stage)
    before, after = report.metrics["preference_accuracy_before"], report.metrics["preference_accuracy"]
    assert before.n == after.n == report.metrics["reward_accuracy"].n == 12
    assert after.value >= 0.9 > before.value
    assert report.metrics["reward_accuracy"].value >= 0.9
    assert report.curves["accuracy"][-1][1] >= 0.9
    assert report.curves["margin"][-1][1] > 0
    assert report.curves["validation_loss"][-1][1] < report.curves["validation_loss"][0][1]


@pytest.mark.parametrize("anchor", [0.0, 0.5])
def test_the_loss_is_the_papers_and_its_reference_is_the_adapter_before_the_stage(
    tmp_path: Path, anchor: float
) -> None:
    import torch

    stage = make_stage(tmp_path, "dpo", DATA, batch_size=8, beta=0.3, anchor=anchor)
    encoded = encode_pairs(stage, DATA.train.pairs)
    with without_dropout(stage.model):
        trainer = make_trainer(stage, encoded, [])
        trainer.ask_reference(encoded, [])
        with torch.no_grad():
            for name, parameter in stage.model.named_parameters():
                if "lora_A" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        rows = [trainer.train_dataset[index] for index in range(8)]
        loss = trainer.compute_loss(stage.model.train(), collate(rows))
        loss.backward()
    gradient = {name: p.grad.clone() for name, p in stage.model.named_parameters() if p.grad is not None}

    reference, _ = load_with_adapter(stage.base, stage.before, "float32")
    policy = stage.model.eval()
    policy.zero_grad()
    terms, said, words = [], [], 0
    for pair in encoded[:8]:
        ratios = []
        for answer in (pair.chosen_ids, pair.rejected_ids):
            ours = plain_log_prob(policy, pair.prompt_ids, answer)
            ratios.append(ours - plain_log_prob(reference.eval(), pair.prompt_ids, answer).detach())
            if answer is pair.chosen_ids:
                said.append(ours)
                words += len(answer)
        terms.append(torch.log(1 + torch.exp(-0.3 * (ratios[0] - ratios[1]))))
    expected = torch.stack(terms).mean() - anchor * torch.stack(said).sum() / words
    assert abs(torch.stack(terms).mean().item() - 0.6931) > 0.01  # the policy really is no longer the reference
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    expected.backward()
    assert gradient
    for name, parameter in policy.named_parameters():
        if name in gradient:
            assert torch.allclose(gradient[name], parameter.grad, atol=2e-4, rtol=1e-2), name


def test_a_pair_is_the_very_tokens_of_inference_then_each_answer_and_the_end_of_the_turn(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, "dpo", DATA)
    (pair,) = encode_pairs(stage, pairs(1))
    encoder = stage.encoder()
    sequence = encoder.encode(examples(1)[0])
    assert sequence is not None
    assert sequence.input_ids == pair.prompt_ids + pair.chosen_ids
    assert pair.rejected_ids[-1] == encoder.end
    assert stage.tokenizer.decode(pair.rejected_ids[:-1]) == "set_alarm"


def test_dropout_is_as_it_was_after_the_stage_and_equal_input_gives_an_equal_adapter(tmp_path: Path) -> None:
    digests = []
    for attempt in ("one", "two"):
        stage = make_stage(tmp_path, "dpo", TrainingData(Split(pairs=pairs(8))), epochs=1)
        stage.folder = tmp_path / attempt
        train_dpo(stage)
        shares = {module.p for name, module in stage.model.named_modules() if name.endswith("lora_dropout.default")}
        assert shares == {0.1}
        assert list(stage.model.peft_config) == ["default"]
        save_adapter(stage.model, tmp_path / f"{attempt}-after", stage.base.base)
        digests.append(sha256_tree(tmp_path / f"{attempt}-after"))
    assert digests[0] == digests[1]


def test_without_held_out_pairs_the_curves_are_of_the_training_pairs(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, "dpo", TrainingData(Split(pairs=pairs(8))), epochs=2)
    report = train_dpo(stage)
    assert {"loss", "accuracy", "margin"} <= set(report.curves)
    assert "validation_loss" not in report.curves
    assert report.curves["loss"][0][1] == pytest.approx(0.6931, abs=1e-3)
    assert report.metrics == {}
    lengths = [pair.row_length for pair in encode_pairs(stage, pairs(8))]
    assert report.tokens == 2 * sum(lengths)


def test_pairs_that_do_not_differ_or_do_not_fit_are_counted_and_an_error_when_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    stage = make_stage(tmp_path, "dpo", TrainingData(Split(pairs=[*pairs(4), *equal_pairs(3)])), epochs=1)
    assert train_dpo(stage).left_out == {"chosen equals rejected": 3}
    stage = make_stage(tmp_path, "dpo", TrainingData(Split(pairs=equal_pairs(3))))
    with pytest.raises(DataError, match=r"train\.stages\.0\.dpo: none of the 3 training pairs"):
        train_dpo(stage)


def test_a_recipe_chains_supervision_and_preferences_on_one_adapter(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, "dpo", DATA)
    data = TrainingData(Split(examples(16), pairs(16)), Split(examples(4, offset=16), pairs(8, offset=16)))
    shared = {"epochs": 1, "batch_size": 8, "max_length": 64}
    training = TrainConfig.model_validate(
        {"lora": {"r": 4}, "stages": [{"sft": shared}, {"reward": shared}, {"dpo": shared}]}
    )
    quiet: dict[str, Any] = {"on_progress": lambda progress: None}
    report = train_adapter(stage.base, data, INTENT, training, tmp_path / "out", tmp_path / "work", **quiet)
    assert [one.stage for one in report.stages] == ["sft", "reward", "dpo"]
    assert set(report.stages[2].metrics) == {"preference_accuracy", "preference_accuracy_before", "reward_accuracy"}
    assert (tmp_path / "work" / "1-reward" / "reward_model" / "adapter_model.safetensors").is_file()


def test_lengths_are_of_the_prompt_with_the_longer_answer_and_with_both() -> None:
    pair = EncodedPair([1, 2, 3], [4, 5], [6])
    assert (pair.length, pair.row_length) == (5, 6)
