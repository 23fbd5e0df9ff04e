from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from online_runs import HalfLearnt
from training_runs import INTENT, examples

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Conversation
from pocketloop.contracts.examples import FunctionRow, IntentRow, example_from_row
from pocketloop.contracts.files import sha256_tree
from pocketloop.contracts.recipe import Catalogue
from pocketloop.contracts.training import TrainConfig
from pocketloop.models.chat import encode_prompt
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.group import _make_trainer, train_group
from pocketloop.training.online import KlBound, make_reward, sampling, stopping_tokenizer, training_prompts
from pocketloop.training.progress import Progress
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, StageRun, TrainingData
from pocketloop.training.tokens import end_of_turn

TIMER = {"name": "set_timer", "description": "Set it.", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def half_learnt(tmp_path_factory: pytest.TempPathFactory) -> HalfLearnt:
    return HalfLearnt(tmp_path_factory.mktemp("half"))


def trainer_of(stage: StageRun) -> tuple[Any, list[Any]]:
    prompts = training_prompts(stage)
    trainer = _make_trainer(stage, stage.config, prompts)  # type: ignore[arg-type]
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # the trainer's loop sets it
    return trainer, prompts


def rows(places: Sequence[int], samples: int) -> list[dict[str, Any]]:
    return [{"prompt": "", "place": place} for place in places for _ in range(samples)]


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_the_model_is_asked_with_the_very_tokens_of_inference(
    half_learnt: HalfLearnt, tmp_path: Path, name: str
) -> None:
    asked = [
        example_from_row(FunctionRow(input=f"{n} minutes, please", function="set_timer", arguments={}), source="test")
        for n in (5, 17)
    ]
    asked[1] = asked[1].in_role("clerk")
    task = TaskSpec("function_call", Catalogue(functions=[TIMER]), "Be brief.", True, {"clerk": "You are the clerk."})
    stage = half_learnt.stage(tmp_path, name, samples=2, max_length=256, task=task, data=TrainingData(Split(asked)))
    with sampling(stage.model):
        trainer, prompts = trainer_of(stage)
        scored = trainer._generate_and_score_completions(rows([0, 1], 2))
    for row, mask, prompt in zip(
        scored["prompt_ids"].tolist(),
        scored["prompt_mask"].tolist(),
        [p for p in prompts for _ in range(2)],
        strict=True,
    ):
        shown = [token for token, there in zip(row, mask, strict=True) if there]
        conversation = task.conversation(prompt.example.prompt, prompt.example.role)
        assert shown == encode_prompt(stage.tokenizer, conversation, task.tools)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_a_steps_gradient_is_that_of_the_papers_formula(half_learnt: HalfLearnt, tmp_path: Path, name: str) -> None:
    stage = half_learnt.stage(tmp_path, name, samples=4, beta=0.1)
    trained = {key: weight for key, weight in stage.model.named_parameters() if weight.requires_grad}
    with sampling(stage.model):
        trainer, prompts = trainer_of(stage)
        scored = trainer._generate_and_score_completions(rows([0, 1, 2, 3], 4))
        trainer.compute_loss(trainer.model, scored).backward()
    theirs = {key: weight.grad.clone() for key, weight in trained.items()}
    stage.model.zero_grad()

    answers = [
        [token for token, there in zip(ids, mask, strict=True) if there]
        for ids, mask in zip(scored["completion_ids"].tolist(), scored["completion_mask"].tolist(), strict=True)
    ]
    end = end_of_turn(stage.tokenizer)
    texts = stage.tokenizer.batch_decode(answers, skip_special_tokens=True)
    places = [at for at in range(4) for _ in range(4)]
    rewards = torch.tensor(
        [
            float(text.strip() == prompts[place].example.answer.content and ids[-1] == end)
            for place, text, ids in zip(places, texts, answers, strict=True)
        ]
    ).view(4, 4)
    assert 0 < rewards.mean() < 1
    if name == "grpo":
        advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    else:
        advantages = rewards - (rewards.sum(1, keepdim=True) - rewards) / 3
    loss = torch.zeros(())
    for place, ids, advantage in zip(places, answers, advantages.flatten(), strict=True):
        prompt = prompts[place].ids
        logits = stage.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        said = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        # the adapter is still the reference: the divergence is zero, and so is its gradient
        loss = loss - advantage * (said.mean() if name == "grpo" else said.sum()) / len(answers)
    loss.backward()
    for key, weight in trained.items():
        assert weight.grad is not None
        torch.testing.assert_close(theirs[key], weight.grad, rtol=1e-3, atol=1e-5)


def test_the_reference_is_the_adapter_before_the_stage_and_divergence_is_measured_from_it(
    half_learnt: HalfLearnt, tmp_path: Path
) -> None:
    stage = half_learnt.stage(tmp_path, "grpo", samples=4, beta=0.0, max_kl=1000)
    reference = half_learnt.stage(tmp_path / "reference", "grpo", samples=4).model
    with sampling(stage.model):
        trainer, _ = trainer_of(stage)
        with torch.no_grad():
            for weight in stage.model.parameters():
                if weight.requires_grad:
                    weight.add_(0.02 * torch.randn_like(weight))
        trainer.training_step(trainer.model, rows([0, 1], 4), None)
        (kl,) = trainer._metrics["train"]["kl_per_answer"]
        scored = trainer._buffered_inputs[0]
    total = 0.0
    for at in range(8):
        prompt = scored["prompt_ids"][at][scored["prompt_mask"][at].bool()]
        answer = scored["completion_ids"][at][scored["completion_mask"][at].bool()]
        ids = torch.cat([prompt, answer])[None]
        with torch.no_grad():
            now, then = (
                model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(1, answer[:, None])
                for model in (stage.model, reference)
            )
        total += float(((then - now).exp() - 1 - (then - now)).sum())  # Schulman's unbiased estimate
    assert kl == pytest.approx(total / 8, rel=1e-2)
    assert total > 0.01


def test_a_stage_ends_before_the_divergence_passes_its_bound(half_learnt: HalfLearnt, tmp_path: Path) -> None:
    stage = half_learnt.stage(tmp_path, "rloo", samples=4, learning_rate=2e-2, epochs=4, max_kl=0.5, warmup=0.0)
    report = train_group(stage)
    curve = [kl for _, kl in report.curves["kl"]]
    assert curve[-1] > 0.5 >= max(curve[:-1])
    assert report.stopped == f"{curve[-1]:.2f} nats an answer from the adapter before, more than max_kl 0.5"
    assert report.steps == len(curve) < 32
    assert report.best_step == report.steps - 2  # the last step measured weights and left them
    assert list(stage.model.peft_config) == ["default"]


def test_the_bound_gives_back_the_last_weights_that_kept_it(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 1)
    bound = KlBound(layer, 1.0)

    def move(value: float) -> None:
        with torch.no_grad():
            layer.weight.fill_(value)

    move(1.0)
    assert bound.allows(0.9, bound.copy(), 1)
    bound.save(tmp_path)
    again = KlBound(layer, 1.0, tmp_path)
    move(2.0)
    for one in (bound, again):
        move(2.0)
        assert not one.allows(1.1, one.copy(), 2)
        assert (layer.weight == 1.0).all()
        assert one.step == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_rewards_rise(half_learnt: HalfLearnt, tmp_path: Path, name: str) -> None:
    stage = half_learnt.stage(tmp_path, name, samples=8, batch_size=32, learning_rate=1e-3, epochs=4, warmup=0.2)
    report = train_group(stage)
    rewards = [reward for _, reward in report.curves["reward"]]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2
    assert (report.examples, report.steps) == (32, 32)
    assert report.tokens > 32 * 32 * 10
    assert report.stopped == ""


def test_a_judge_is_asked_about_whole_answers_only(half_learnt: HalfLearnt, tmp_path: Path) -> None:
    asked: list[tuple[Conversation, str]] = []

    def judge(conversations: Sequence[Conversation], texts: Sequence[str]) -> list[float]:
        asked.extend(zip(conversations, texts, strict=True))
        return [float(len(text) % 2) for text in texts]

    stage = half_learnt.stage(tmp_path, "grpo", samples=2, reward="judge", judge=judge)
    prompts = training_prompts(stage)
    reward = make_reward(stage, prompts, "judge")
    end = end_of_turn(stage.tokenizer)
    assert reward([0, 1, 0], ["abc", "ab", "cut o"], [[9, end], [9, end], [9, 9]]) == [1.0, 0.0, 0.0]
    assert asked == [(prompts[0].conversation, "abc"), (prompts[1].conversation, "ab")]
    assert reward([0], [""], [[]]) == [0.0]


def test_prompts_are_drawn_by_seed_and_what_cannot_be_used_is_counted(half_learnt: HalfLearnt, tmp_path: Path) -> None:
    long = example_from_row(IntentRow(input="timer " * 60, output="set_timer"), source="test")
    data = TrainingData(Split([*examples(8), long]))
    stage = half_learnt.stage(tmp_path, "grpo", samples=2, data=data)
    prompts = training_prompts(stage)
    assert len(prompts) == 8
    assert stage.left_out == {"no room for an answer within max_length": 1}
    assert training_prompts(stage) == prompts
    few = half_learnt.stage(tmp_path, "grpo", samples=2, prompts=3, data=data)
    assert training_prompts(few) == [p for p in prompts if p.example != long][:3]
    chat = half_learnt.stage(tmp_path, "grpo", samples=2, task=TaskSpec("chat", None), data=data)
    with pytest.raises(DataError, match=r"train\.stages\.1\.grpo: no prompt to learn from \(9: no program can check"):
        training_prompts(chat)


def test_dropout_and_the_models_own_settings_come_back_after_the_stage(half_learnt: HalfLearnt, tmp_path: Path) -> None:
    stage = half_learnt.stage(tmp_path, "grpo", samples=2)
    drops = [module for module in stage.model.modules() if isinstance(module, torch.nn.Dropout)]
    for module in drops:
        module.p = 0.25
    settings, configured = stage.model.generation_config.to_dict(), stage.model.config.to_dict()
    with sampling(stage.model):
        assert {module.p for module in drops} <= {0.0}
        trainer_of(stage)
        assert sorted(stage.model.peft_config) == ["default", "ref"]
    assert {module.p for module in drops} <= {0.25}
    assert list(stage.model.peft_config) == ["default"]
    assert (stage.model.generation_config.to_dict(), stage.model.config.to_dict()) == (settings, configured)
    assert all(weight.requires_grad == ("lora_" in name) for name, weight in stage.model.named_parameters())


def test_answers_end_at_the_end_of_turn_and_padding_is_a_token_of_no_prompt(
    half_learnt: HalfLearnt, tmp_path: Path
) -> None:
    stage = half_learnt.stage(tmp_path, "grpo", samples=2)
    prompts = training_prompts(stage)
    stage.tokenizer.pad_token = "<end_of_turn>"
    tokenizer = stopping_tokenizer(stage, prompts)
    assert tokenizer.eos_token == "<end_of_turn>"
    assert tokenizer.pad_token_id not in {token for prompt in prompts for token in prompt.ids} | {
        tokenizer.eos_token_id
    }
    assert stage.tokenizer.eos_token == "<eos>"
    assert INTENT.tools is None


@pytest.mark.slow
def test_a_killed_stage_goes_on_to_the_weights_of_one_that_was_not(half_learnt: HalfLearnt, tmp_path: Path) -> None:
    training = TrainConfig.model_validate(
        {
            "lora": {"r": 8, "alpha": 16, "dropout": 0.1},
            "stages": [{"grpo": {"samples": 4, "max_length": 64, "max_new_tokens": 12, "learning_rate": 1e-3}}],
            "checkpoints": {"every_seconds": 0.0},
            "seed": 3,
        }
    )

    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == 5:
            raise Killed

    def run(out: Path, on_progress: Any) -> list[tuple[int, float]]:
        data, work = TrainingData(Split(examples(32))), out.with_name(f"{out.name}-work")
        report = train_adapter(
            half_learnt.base,
            data,
            INTENT,
            training,
            out,
            work,
            on_progress,
            start=half_learnt.adapter,
            every_seconds=0,
        )
        assert report.steps == 8
        return report.stages[0].curves["reward"]

    whole = run(tmp_path / "whole", lambda progress: None)
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill)
    notes: list[str] = []
    assert run(tmp_path / "killed", lambda progress: notes.append(progress.note)) == whole
    assert any("going on at step 4 of 8" in note for note in notes)
    assert sha256_tree(tmp_path / "killed") == sha256_tree(tmp_path / "whole")
