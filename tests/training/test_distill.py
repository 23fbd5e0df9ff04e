"""Distillation on random models: a teacher of more layers that has learnt a task; students see wrong labels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tinymodels import save_tiny_model

from pocketloop.contracts.errors import ConfigError, DataError, ModelError
from pocketloop.contracts.examples import Example, FunctionRow, IntentRow, example_from_row
from pocketloop.contracts.files import read_jsonl, sha256_tree
from pocketloop.contracts.recipe import BaseConfig, Catalogue
from pocketloop.contracts.reports import TrainReport
from pocketloop.contracts.training import Checkpoints, DistillConfig, TrainConfig
from pocketloop.models.bases import load_with_adapter
from pocketloop.models.chat import encode_prompt
from pocketloop.models.generators import TransformersGenerator
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.adapters import new_adapter
from pocketloop.training.distill import problem
from pocketloop.training.on_policy import distillation_trainer_class, divergence, match_teacher
from pocketloop.training.progress import Progress
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, StageRun, TrainingData
from pocketloop.training.tokens import IGNORED

WORDS = {"timer": "set_timer", "alarm": "set_alarm", "music": "play_music", "weather": "get_weather"}
INTENT = TaskSpec("intent", Catalogue(labels=list(WORDS.values())))


def save_base(folder: Path, **more: Any) -> BaseConfig:
    save_tiny_model(folder / "weights", initializer_range=0.05, **more)
    config = BaseConfig(base=folder.name, source=str(folder / "weights"), architecture="gemma3")
    (folder / "base.yaml").write_text(config.model_dump_json(exclude_defaults=True))
    return config


def asked(count: int, start: int = 0, right: bool = True) -> list[Example]:
    words = list(WORDS)
    rows = [(f"{words[i % 4]} please {i // 4}", WORDS[words[(i if right else i + 1) % 4]]) for i in range(start, count)]
    return [example_from_row(IntentRow(input=said, output=label), source="test") for said, label in rows]


def config(*stages: dict[str, Any]) -> TrainConfig:
    lora = {"r": 8, "alpha": 16, "dropout": 0.0}
    return TrainConfig.model_validate({"lora": lora, "stages": list(stages), "seed": 3})


def learn(base: BaseConfig, rows: list[Example], out: Path, *stages: dict[str, Any], **more: Any) -> TrainReport:
    data = TrainingData(Split(rows), Split(asked(8)))
    return train_adapter(base, data, INTENT, config(*stages), out, out.with_name(f"{out.name}-work"), **more)


def right_answers(base: BaseConfig, adapter: Path) -> int:
    held_out = asked(64, start=48)
    generator = TransformersGenerator(*load_with_adapter(base, adapter, "float32"))
    answers = generator.generate([INTENT.conversation(example.prompt) for example in held_out], 12)
    return sum(answer.text == example.answer.content for answer, example in zip(answers, held_out, strict=True))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return save_base(tmp_path_factory.mktemp("student"), layers=2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How a recipe names a teacher of four layers that knows the task."""
    folder = tmp_path_factory.mktemp("teacher")
    base = save_base(folder, layers=4, seed=1)
    learn(base, asked(48), folder / "adapter", {"sft": {"epochs": 14, "learning_rate": 1e-2, "batch_size": 8}})
    assert right_answers(base, folder / "adapter") >= 15
    return {"teacher": str(folder / "base.yaml"), "teacher_adapter": str(folder / "adapter"), "max_new_tokens": 12}


@pytest.mark.parametrize("rows", [1, 7])
def test_the_divergence_is_torchs_at_both_ends_and_the_papers_formula_between(rows: int) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(rows, 50, dtype=torch.float64), torch.randn(rows, 50, dtype=torch.float64)
    s, t = student.log_softmax(-1), teacher.log_softmax(-1)
    kl = torch.nn.KLDivLoss(reduction="sum", log_target=True)  # KLDivLoss(a, b) is KL(b || a)
    assert divergence(student, teacher, 0.0).item() == pytest.approx(kl(s, t).item())
    assert divergence(student, teacher, 1.0).item() == pytest.approx(kl(t, s).item())
    mixture = (0.3 * t.exp() + 0.7 * s.exp()).log()
    assert divergence(student, teacher, 0.3).item() == pytest.approx(
        0.3 * kl(mixture, t).item() + 0.7 * kl(mixture, s).item()
    )
    assert divergence(teacher, teacher, 0.5).item() == pytest.approx(0, abs=1e-9)
    assert divergence(student, teacher, 0.5).item() == pytest.approx(divergence(teacher, student, 0.5).item())


@pytest.mark.filterwarnings("ignore::trl.import_utils.TRLExperimentalWarning")
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_divergence_is_that_of_trls_own_trainer(beta: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    student, teacher = torch.randn(5, 40, requires_grad=True), torch.randn(5, 40)
    theirs = GKDTrainer.generalized_jsd_loss(student, teacher, beta=beta, reduction="sum")
    ours = divergence(student, teacher, beta)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, student), torch.autograd.grad(theirs, student))


def test_rows_of_the_output_beyond_the_vocabulary_are_not_compared() -> None:
    student, teacher = torch.randn(3, 50), torch.randn(3, 64)
    assert torch.equal(divergence(student, teacher, 0.5), divergence(student, teacher[:, :50], 0.5))


@pytest.mark.slow
def test_a_student_learns_the_teachers_answers_and_not_the_labels(
    student: BaseConfig, teacher: dict[str, Any], tmp_path: Path
) -> None:
    rows = asked(48, right=False)
    schedule = {"epochs": 14, "learning_rate": 1e-2, "batch_size": 8}
    report = learn(student, rows, tmp_path / "adapter", {"distill": {"mode": "sequence", **teacher, **schedule}})
    (stage,) = report.stages
    assert (stage.stage, stage.examples, stage.left_out) == ("distill", 48, {})
    assert right_answers(student, tmp_path / "adapter") >= 14
    learn(student, rows, tmp_path / "labels", {"sft": schedule})
    assert right_answers(student, tmp_path / "labels") == 0


@pytest.mark.slow
def test_a_student_is_pulled_to_the_teachers_distribution_along_its_own_answers(
    student: BaseConfig, teacher: dict[str, Any], tmp_path: Path
) -> None:
    """It has half learnt the task; what it sees from then on are wrong labels and the teacher's opinion."""
    learn(student, asked(48), tmp_path / "before", {"sft": {"epochs": 3, "learning_rate": 3e-3, "batch_size": 8}})
    stage = {"distill": {**teacher, "epochs": 14, "learning_rate": 5e-3, "batch_size": 8, "beta": 0.0}}
    report = learn(student, asked(48, right=False), tmp_path / "after", stage, start=tmp_path / "before")
    loss, held_out = (report.stages[0].curves[name] for name in ("loss", "validation_loss"))
    assert loss[-1][1] < loss[0][1] / 2
    assert min(held_out, key=lambda point: point[1])[0] == report.stages[0].best_step
    assert right_answers(student, tmp_path / "before") <= 12
    assert right_answers(student, tmp_path / "after") >= 15


def test_equal_seeds_draw_equal_answers(student: BaseConfig, teacher: dict[str, Any], tmp_path: Path) -> None:
    stage = {"distill": {**teacher, "epochs": 1, "learning_rate": 5e-3, "batch_size": 8}}
    for name in ("one", "two"):
        learn(student, asked(16), tmp_path / name, stage)
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


def test_a_stopped_stage_goes_on_to_the_same_weights(
    student: BaseConfig, teacher: dict[str, Any], tmp_path: Path
) -> None:
    """What the student says next is drawn by a generator whose state every checkpoint keeps."""

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    notes: list[str] = []
    stage = {"distill": {**teacher, "epochs": 2, "learning_rate": 5e-3, "batch_size": 4}}
    data = TrainingData(Split(asked(12)), Split(asked(8)))
    often = config(stage).model_copy(update={"checkpoints": Checkpoints(every_seconds=0)})
    train_adapter(student, data, INTENT, often, tmp_path / "whole", tmp_path / "work-1")
    with pytest.raises(KeyboardInterrupt):
        train_adapter(student, data, INTENT, often, tmp_path / "two", tmp_path / "work-2", stop, every_seconds=0)
    rest = tmp_path / "two", tmp_path / "work-2"
    train_adapter(student, data, INTENT, often, *rest, lambda progress: notes.append(str(progress)))
    assert notes[0].startswith("train.stages.0.distill: going on at step 2 of 6")
    assert sha256_tree(tmp_path / "whole") == sha256_tree(tmp_path / "two")


def test_a_stopped_run_asks_the_teacher_only_for_what_is_missing(
    student: BaseConfig, teacher: dict[str, Any], tmp_path: Path
) -> None:
    seen: list[str] = []

    def stop(progress: Progress) -> None:
        seen.append(str(progress))
        raise KeyboardInterrupt

    stage = {"distill": {"mode": "sequence", **teacher, "epochs": 1, "batch_size": 8}}
    with pytest.raises(KeyboardInterrupt):
        learn(student, asked(16), tmp_path / "adapter", stage, on_progress=stop)
    assert seen == ["train.stages.0.distill: the teacher has answered 16 of 16 prompts"]
    kept = tmp_path / "adapter-work" / "0-distill" / "teacher.jsonl"
    answers = list(read_jsonl(kept))
    assert len(answers) == 16
    written = kept.stat().st_mtime_ns
    learn(student, asked(16), tmp_path / "adapter", stage)
    assert not kept.exists() or kept.stat().st_mtime_ns == written


def test_what_is_sampled_begins_with_the_prompt_of_inference_and_ends_with_the_turn(
    student: BaseConfig, tmp_path: Path
) -> None:
    from trl import SFTConfig

    from pocketloop.models.bases import load_base
    from pocketloop.training.adapters import LoraConfig

    model, tokenizer = load_base(student, "float32")
    model = new_adapter(model, LoraConfig(r=2, dropout=0.0))
    settings = DistillConfig(teacher="none", max_new_tokens=5)
    stage = StageRun(
        "distill", 0, settings, student, INTENT, TrainingData(Split()), model, tokenizer, False, 0, tmp_path, tmp_path
    )
    examples = [asked(1)[0], example_from_row(IntentRow(input="timer " * 9, output="set_timer"), source="test")]
    rows = [vars(sequence) for example in examples if (sequence := stage.encoder().encode(example))]
    arguments = SFTConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", loss_type="nll",
        gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    from datasets import Dataset

    trainer = distillation_trainer_class()(
        stage,
        settings,
        load_base(student, "float32")[0],
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    model.train()
    drawn = trainer.sampled(model, trainer.data_collator(rows))
    assert model.training
    for example, ids, mask, labels in zip(
        examples, drawn["input_ids"], drawn["attention_mask"].bool(), drawn["labels"], strict=True
    ):
        prompt = encode_prompt(tokenizer, INTENT.conversation(example.prompt))
        assert ids[mask][: len(prompt)].tolist() == prompt
        answer = ids[mask][len(prompt) :]
        assert labels[labels != IGNORED].tolist() == answer.tolist()
        assert 1 <= len(answer) <= 5
        assert not set(answer[:-1].tolist()) & trainer.stops


def test_many_positions_are_compared_in_parts_with_the_same_gradient(
    student: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from pocketloop.models.bases import load_base
    from pocketloop.training import on_policy

    model, other = load_base(student, "float32")[0], load_base(student, "float32")[0]
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.02)
    ours, theirs = torch.randn(10, 64, requires_grad=True), torch.randn(10, 64)
    holder = SimpleNamespace(teacher=other, settings=DistillConfig(teacher="none", beta=0.5))
    found = []
    for large in (1 << 20, 100):
        monkeypatch.setattr(on_policy, "LARGE_VOCABULARY", large)
        monkeypatch.setattr(on_policy, "CHUNK_POSITIONS", 3)
        value = distillation_trainer_class().divergence(holder, model, ours, theirs)
        (gradient,) = torch.autograd.grad(value, ours)
        found.append((value, gradient))
    torch.testing.assert_close(found[0], found[1])


def test_a_teacher_with_another_vocabulary_is_refused(
    student: BaseConfig, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    save_base(other, layers=1, vocabulary=420)
    with pytest.raises(ModelError, match=r"train.stages.0.distill.teacher: the tokenizer of .* is not that of base"):
        learn(student, asked(8), tmp_path / "adapter", {"distill": {"teacher": str(other / "base.yaml")}})


def test_a_sharded_student_cannot_be_sampled_from(
    student: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    settings = DistillConfig(teacher="none")
    stage = StageRun(
        "distill", 1, settings, student, INTENT, TrainingData(Split()), None, None, False, 0, tmp_path, tmp_path
    )
    with pytest.raises(ConfigError, match=r"train.stages.1.distill samples .* set train.resources.strategy to ddp"):
        match_teacher(stage, settings, None)


def test_a_teacher_that_says_nothing_sensible_is_an_error_that_counts_why(
    student: BaseConfig, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("babbling")
    save_base(other, layers=1, seed=5)
    stage = {"distill": {"mode": "sequence", "teacher": str(other / "base.yaml"), "max_new_tokens": 3}}
    with pytest.raises(DataError, match=r"none of the teacher's 8 answers can be learnt from \(8 the teacher's answer"):
        learn(student, asked(8), tmp_path / "adapter", stage)


@pytest.mark.parametrize(
    ("text", "finished", "expected"),
    [
        ("set_timer", True, ""),
        ("set_timer", False, "did not end"),
        ("set_thing", True, "is no answer"),
        ("", True, "is no answer"),
    ],
)
def test_a_label_is_learnt_when_it_is_a_known_one_that_ended(text: str, finished: bool, expected: str) -> None:
    assert expected in problem({"text": text, "finished": finished}, INTENT)


def test_a_call_is_learnt_when_it_can_be_read() -> None:
    row = FunctionRow(input="x", function="set_timer", arguments={})
    task = TaskSpec(example_from_row(row, source="test").task, None)
    call = '{"function": "set_timer", "arguments": {}}'
    assert not problem({"text": call, "finished": True}, task)
    assert "unreadable" in problem({"text": call[:-1], "finished": True}, task)
    assert "unreadable" in problem({"text": "a timer", "finished": True}, task)
