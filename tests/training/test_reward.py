from pathlib import Path

import pytest
from preference_runs import equal_pairs, make_stage, pairs
from tinymodels import ARCHITECTURES, Architecture

from pocketloop.contracts.errors import DataError, ModelError
from pocketloop.contracts.files import sha256_tree
from pocketloop.training.adapters import save_adapter
from pocketloop.training.preference_data import encode_pairs
from pocketloop.training.reward import load_reward_model, train_reward
from pocketloop.training.stage import Split, TrainingData

DATA = TrainingData(Split(pairs=pairs(48)), Split(pairs=pairs(12, offset=48)))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reward_model_learns_which_answer_is_better_and_leaves_the_stages_adapter_alone(
    tmp_path: Path, architecture: Architecture
) -> None:
    stage = make_stage(tmp_path, "reward", DATA, architecture, epochs=6, learning_rate=3e-3)
    report = train_reward(stage)
    ranking = report.metrics["ranking_accuracy"]
    assert ranking.n == 12
    assert ranking.low <= ranking.value <= ranking.high
    assert ranking.value >= 0.9
    assert report.curves["loss"][-1][1] < 0.5 * report.curves["loss"][0][1]
    assert report.curves["accuracy"][-1][1] >= 0.9
    assert report.tokens > 48 * 6 * 10
    save_adapter(stage.model, tmp_path / "after", stage.base.base)
    assert sha256_tree(tmp_path / "after") == sha256_tree(stage.before)


def test_a_saved_reward_model_is_safetensors_alone_and_scores_as_it_did_when_it_was_trained(tmp_path: Path) -> None:
    import torch

    stage = make_stage(tmp_path, "reward", DATA)
    report = train_reward(stage)
    folder = stage.folder / "reward_model"
    assert sorted(file.name for file in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    model = load_reward_model(folder, stage.base)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    right = 0
    for pair in encode_pairs(stage, pairs(12, offset=48)):
        scores = [model(torch.tensor([pair.prompt_ids + ids])).logits for ids in (pair.chosen_ids, pair.rejected_ids)]
        assert scores[0].shape == (1, 1)
        right += bool(scores[0] > scores[1])
    assert right / 12 == report.metrics["ranking_accuracy"].value


def test_padding_on_either_side_does_not_change_a_score(tmp_path: Path) -> None:
    import torch

    stage = make_stage(tmp_path, "reward", DATA, epochs=1)
    train_reward(stage)
    model = load_reward_model(stage.folder / "reward_model", stage.base)
    pair = encode_pairs(stage, pairs(1))[0]
    ids, pad = pair.prompt_ids + pair.chosen_ids, stage.tokenizer.pad_token_id
    alone = model(torch.tensor([ids])).logits
    for padded, mask in [([*ids, pad, pad], [1] * len(ids) + [0, 0]), ([pad, pad, *ids], [0, 0] + [1] * len(ids))]:
        again = model(torch.tensor([padded]), attention_mask=torch.tensor([mask])).logits
        assert torch.allclose(alone, again, atol=1e-5)


def test_the_loss_is_bradley_and_terrys(tmp_path: Path) -> None:
    import torch

    stage = make_stage(tmp_path, "reward", DATA, epochs=1, batch_size=48, learning_rate=1e-9)
    report = train_reward(stage)  # one step: its loss is that of the untouched model on all the pairs
    model = load_reward_model(stage.folder / "reward_model", stage.base)
    losses = []
    for pair in encode_pairs(stage, DATA.train.pairs):
        chosen, rejected = (
            model(torch.tensor([pair.prompt_ids + ids])).logits for ids in (pair.chosen_ids, pair.rejected_ids)
        )
        losses.append(-torch.log(1 / (1 + torch.exp(rejected - chosen))))
    assert report.curves["loss"][0][1] == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)


def test_the_reward_model_starts_as_the_adapter_is_before_the_stage(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    stage = make_stage(tmp_path, "reward", DATA, epochs=1, batch_size=48, learning_rate=1e-9)
    train_reward(stage)
    before = load_file(stage.before / "adapter_model.safetensors")
    trained = load_file(stage.folder / "reward_model" / "adapter_model.safetensors")
    assert {name for name in trained if name not in before} == {"base_model.model.score.weight"}
    assert all(before[name].allclose(trained[name], atol=1e-6) for name in before)


def test_pairs_that_do_not_differ_or_do_not_fit_are_counted_and_an_error_when_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    stage = make_stage(tmp_path, "reward", TrainingData(Split(pairs=[*pairs(8), *equal_pairs(3)])), epochs=1)
    assert train_reward(stage).left_out == {"chosen equals rejected": 3}
    stage = make_stage(tmp_path, "reward", TrainingData(Split(pairs=equal_pairs(3))))
    with pytest.raises(DataError, match=r"train\.stages\.0\.reward: none of the 3 training pairs .*chosen equals reje"):
        train_reward(stage)
    stage = make_stage(tmp_path, "reward", TrainingData(Split(pairs=pairs(3))), max_length=16)
    with pytest.raises(DataError, match=r"answer beyond max_length: 3"):
        train_reward(stage)


def test_a_folder_without_a_reward_model_is_refused(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, "reward", DATA)
    with pytest.raises(ModelError, match="holds no reward model"):
        load_reward_model(tmp_path / "nothing", stage.base)
