import json
from pathlib import Path
from typing import Any

import pytest
from preference_runs import equal_pairs, pairs, rated
from tinymodels import save_tiny_model
from training_runs import INTENT, examples, tiny_base

from pocketloop.contracts.errors import ConfigError, DataError, ModelError, PocketloopError
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import TrainConfig
from pocketloop.models.chat import load_tokenizer
from pocketloop.training import run
from pocketloop.training.check import check_training
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, TrainingData

EVERYTHING = Split(examples(8), pairs(8), rated(8))
SFT: dict[str, Any] = {"sft": {}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return tiny_base(tmp_path_factory.mktemp("bases") / "gemma3")


def check(base: BaseConfig, train: Split, *stages: dict[str, Any], judge: Any = None, tokenizer: Any = None) -> None:
    training = TrainConfig.model_validate({"stages": list(stages)})
    check_training(base, tokenizer or load_tokenizer(base.source), TrainingData(train), INTENT, training, judge)


def test_a_recipe_of_all_stages_with_the_data_that_they_need_passes(base: BaseConfig) -> None:
    grpo = {"grpo": {"reward": "judge"}}
    stages: list[dict[str, Any]] = [SFT, {"reward": {}}, {"dpo": {}}, {"kto": {}}, grpo, {"rloo": {}}, {"ppo": {}}]
    check(base, EVERYTHING, *stages, judge=lambda prompts, answers: [1.0])


@pytest.mark.parametrize(
    ("train", "stages", "message"),
    [
        (Split(), [SFT], r"train\.stages\.0\.sft: the release holds no training examples; see data\.sources"),
        (Split(examples(12)[::4]), [SFT], r"train\.stages\.0\.sft: all 3 training examples have the same answer"),
        (
            Split(examples(8)),
            [SFT, {"dpo": {}}],
            r"train\.stages\.1\.dpo: .*no preference pairs.*label\.pairs\.correct",
        ),
        (Split(examples(8)), [{"reward": {}}, SFT], r"train\.stages\.0\.reward: .*no preference pairs"),
        (Split(examples(8), equal_pairs(5)), [{"dpo": {}}], r"dpo: none of the 5 .*chosen equals rejected: 5"),
        (Split(pairs=pairs(5)), [{"dpo": {"max_length": 16}}], r"answer beyond max_length: 5.*0\.dpo\.max_length"),
        (Split(examples(8)), [SFT, {"kto": {}}], r"train\.stages\.1\.kto: the release holds no rated answers"),
        (Split(rated=[r for r in rated(9) if r.desirable]), [{"kto": {}}], r"all 6 rated answers were found good"),
        (Split(rated=[r for r in rated(9) if not r.desirable]), [{"kto": {}}], r"all 3 rated answers were found bad"),
        (EVERYTHING, [{"sft": {"max_length": 16}}], r"none of the 8 training examples ends within 16 tokens"),
        (EVERYTHING, [{"grpo": {"max_length": 16}}], r"train\.stages\.0\.grpo: no prompt to learn from"),
        (Split(), [{"rloo": {}}], r"train\.stages\.0\.rloo: the release holds no training examples"),
    ],
)
def test_a_stage_without_the_data_it_needs_is_an_error_by_its_key(
    base: BaseConfig, train: Split, stages: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check(base, train, *stages)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"sft": {"max_length": 4096}}], r"stages\.0\.sft\.max_length 4096 is more than the context .* 2048 tokens"),
        ([SFT, {"kto": {"batch_size": 1}}], r"train\.stages\.1\.kto\.batch_size must be at least 2"),
        ([{"grpo": {"reward": "judge"}}], r"train\.stages\.0\.grpo\.reward is `judge`.* set `label\.llm`"),
        ([{"distill": {"teacher": "nobody"}}], r"unknown base 'nobody'"),
    ],
)
def test_settings_that_cannot_work_are_an_error_by_their_key(
    base: BaseConfig, stages: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(base, EVERYTHING, *stages)


def test_what_can_be_learnt_from_may_come_late(base: BaseConfig) -> None:
    late = Split(examples(8), [*equal_pairs(70), *pairs(1)], [*[r for r in rated(150) if r.desirable], rated(1)[0]])
    check(base, late, {"dpo": {}}, {"kto": {}})


def test_a_tokenizer_with_tokens_that_the_weights_do_not_know_is_refused(base: BaseConfig, tmp_path: Path) -> None:
    config = json.loads((Path(base.source) / "config.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(base.source)
    tokenizer.add_tokens(["<one>", "<two>"])
    with pytest.raises(
        ModelError, match=rf"highest token is {config['vocab_size'] + 1}, the weights know tokens below"
    ):
        check(base, EVERYTHING, SFT, tokenizer=tokenizer)


def test_a_tokenizer_that_cannot_write_a_conversation_is_refused(base: BaseConfig) -> None:
    tokenizer = load_tokenizer(base.source)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"no chat template; name one under `chat_template`"):
        check(base, EVERYTHING, SFT, tokenizer=tokenizer)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    with pytest.raises(ModelError, match=r"no end-of-turn token"):
        check(base, EVERYTHING, SFT, tokenizer=tokenizer)


def test_a_teacher_with_another_tokenizer_is_refused(base: BaseConfig, tmp_path: Path) -> None:
    llama = save_tiny_model(tmp_path / "llama", "llama")
    for name, source, architecture in [("other", str(llama), "llama"), ("same", base.source, "gemma3")]:
        text = json.dumps({"base": name, "source": source, "architecture": architecture})
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    check(base, EVERYTHING, {"distill": {"teacher": str(tmp_path / "same.yaml")}})
    with pytest.raises(ModelError, match=r"train\.stages\.0\.distill\.teacher: the tokenizer of .*other\.yaml"):
        check(base, EVERYTHING, {"distill": {"teacher": str(tmp_path / "other.yaml")}})
    gone = {"teacher": str(tmp_path / "same.yaml"), "teacher_adapter": "nowhere"}
    with pytest.raises(ModelError, match=r"teacher_adapter: nowhere holds no adapter_model\.safetensors"):
        check(base, EVERYTHING, {"distill": gone})


def test_nothing_is_loaded_or_written_before_a_run_is_refused(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_base", lambda *_, **__: pytest.fail("the weights were loaded"))
    training = TrainConfig.model_validate({"stages": [SFT, {"dpo": {}}]})
    with pytest.raises(PocketloopError, match=r"train\.stages\.1\.dpo"):
        data = TrainingData(Split(examples(8)))
        train_adapter(base, data, INTENT, training, tmp_path / "out", tmp_path / "work")
    assert list(tmp_path.iterdir()) == []
