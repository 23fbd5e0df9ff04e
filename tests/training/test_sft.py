import json
from pathlib import Path
from typing import Any

import pytest
from tinymodels import ARCHITECTURES, save_tiny_model
from training_runs import INTENT, examples, learn, settings, tiny_base, train

from pocketloop.contracts.errors import DataError, ModelError
from pocketloop.contracts.examples import IntentRow, example_from_row
from pocketloop.contracts.files import sha256_tree
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import SftConfig
from pocketloop.models.bases import load_base, load_with_adapter
from pocketloop.models.generators import TransformersGenerator
from pocketloop.training.progress import Progress
from pocketloop.training.stage import Split, StageRun, TrainingData
from pocketloop.training.trainer import answer_trainer_class


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return tiny_base(tmp_path_factory.mktemp("bases") / "gemma3")


@pytest.mark.slow
def test_an_adapter_learns_what_the_base_alone_cannot_do(base: BaseConfig, tmp_path: Path) -> None:
    report = train(base, tmp_path / "adapter", settings(epochs=16), 64)
    (stage,) = report.stages
    assert stage.curves["loss"][-1][1] < 0.3 < stage.curves["loss"][0][1]
    assert report.steps == 16 * 8
    assert [step for step, _ in stage.curves["validation_loss"]] == list(range(8, 129, 8))
    held_out = examples(8, offset=64)
    prompts = [INTENT.conversation(example.prompt) for example in held_out]

    def right(model: Any, tokenizer: Any) -> int:
        answers = TransformersGenerator(model, tokenizer).generate(prompts, 16)
        return sum(answer.text == example.answer.content for answer, example in zip(answers, held_out, strict=True))

    assert right(*load_with_adapter(base, tmp_path / "adapter", "float32")) >= 7
    assert right(*load_base(base, "float32")) == 0


def test_the_adapters_folder_holds_safetensors_and_a_config_that_names_the_base_and_no_path(
    base: BaseConfig, tmp_path: Path
) -> None:
    report = train(base, tmp_path / "adapter", settings(epochs=1), 8)
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    text = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "tiny-test"
    assert base.source not in text
    assert report.stages[0].examples == 8
    assert report.trainable < report.parameters


def test_equal_input_gives_equal_bytes_and_another_seed_other_ones(base: BaseConfig, tmp_path: Path) -> None:
    again = settings(epochs=1).model_copy(update={"seed": 4})
    for name, training in [("one", settings(epochs=1)), ("two", settings(epochs=1)), ("other", again)]:
        train(base, tmp_path / name, training, 16)
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")
    assert sha256_tree(tmp_path / "one") != sha256_tree(tmp_path / "other")


def test_a_loss_that_is_no_number_stops_the_run_and_says_what_to_change(base: BaseConfig, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"loss is nan at step \d+ of \d+; lower train.stages.0.sft.learning_rate"):
        train(base, tmp_path / "adapter", settings(learning_rate=1e30))
    assert not (tmp_path / "adapter").exists()


def test_answers_that_do_not_fit_are_left_out_and_an_empty_rest_is_an_error(base: BaseConfig, tmp_path: Path) -> None:
    long = example_from_row(IntentRow(input="timer " * 60, output="set_timer"), source="test")
    (stage,) = learn(base, [*examples(8), long], [], settings(epochs=1), tmp_path / "adapter").stages
    assert (stage.examples, stage.left_out) == (8, {"answer beyond max_length": 1})
    assert "validation_loss" not in stage.curves
    with pytest.raises(DataError, match="none of the 1 training examples ends within 64 tokens"):
        learn(base, [long], [], settings(), tmp_path / "other")


def test_progress_counts_steps_and_tokens_up_to_the_last_step(base: BaseConfig, tmp_path: Path) -> None:
    seen: list[Progress] = []
    report = train(base, tmp_path / "adapter", settings(), on_progress=seen.append, every_seconds=0)
    assert [progress.step for progress in seen] == list(range(1, 9))
    assert seen[-1].tokens == report.tokens
    assert seen[-1].seconds_left == 0
    assert str(seen[0]).startswith("step 1/8  loss ")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_is_the_models_own(tmp_path: Path, architecture: Any) -> None:
    """Oracle: transformers' loss over the full logits, soft-capped ones for Gemma."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTConfig

    capped = {"final_logit_softcapping": 5.0} if architecture == "gemma3" else {}
    config = BaseConfig(
        base="tiny-test",
        source=str(save_tiny_model(tmp_path / "base", architecture, layers=1, **capped)),
        architecture=architecture,
    )
    model, tokenizer = load_base(config, "float32")
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    rows = [{"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, -100, 8, 9]}, {"input_ids": [9], "labels": [9]}]
    arguments = SFTConfig(
        output_dir=str(tmp_path / "out"),
        use_cpu=True,
        bf16=False,
        loss_type="nll",
        report_to="none",
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    stage = StageRun(
        "sft", 0, SftConfig(), config, INTENT, TrainingData(Split()), model, tokenizer, False, 0, *[tmp_path] * 2
    )
    trainer = answer_trainer_class()(
        stage, model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    batch = trainer.data_collator(rows)
    with torch.no_grad():
        ours = trainer.compute_loss(model, batch)
        theirs = model(**batch).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_activations_computed_again_give_the_same_adapter(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, too, is drawn again as it was."""
    from transformers import modeling_utils

    checkpoint, layers = modeling_utils.checkpoint, []
    monkeypatch.setattr(
        modeling_utils, "checkpoint", lambda *given, **more: layers.append(1) or checkpoint(*given, **more)
    )
    from safetensors.torch import load_file

    from pocketloop.training import run

    training = settings({"dropout": 0.2}, epochs=1)
    train(base, tmp_path / "kept", training, 16)
    monkeypatch.setattr(run, "choose_gradient_checkpointing", lambda *_: [True])
    train(base, tmp_path / "again", training, 16)
    assert len(layers) >= 2 * 2  # two layers, two steps
    kept, again = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("kept", "again"))
    assert all((kept[name] - again[name]).abs().max() < 1e-6 for name in kept)
