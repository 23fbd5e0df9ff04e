from typing import Any

import pytest
from pydantic import ValidationError

from pocketloop.contracts.training import STAGE_NAMES, Stage, TrainConfig


def read(*stages: dict[str, Any]) -> TrainConfig:
    return TrainConfig.model_validate({"stages": list(stages)})


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_a_stage_is_named_by_its_key_and_written_with_no_other(name: str) -> None:
    given = {"teacher": "tiny"} if name == "distill" else {}
    stage = Stage.model_validate({name: given})
    assert stage.name == name
    assert list(stage.model_dump()) == [name]
    assert Stage.model_validate(stage.model_dump()) == stage


@pytest.mark.parametrize("stage", [{}, {"sft": {}, "dpo": {}}])
def test_a_stage_with_no_key_or_two_is_refused(stage: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a stage has one key out of sft, dpo"):
        Stage.model_validate(stage)


@pytest.mark.parametrize("asking", [{"ppo": {}}, {"grpo": {"reward": "model"}}, {"rloo": {"reward": "model"}}])
def test_what_needs_a_reward_model_needs_its_stage_first(asking: dict[str, Any]) -> None:
    assert read({"sft": {}}, {"reward": {}}, asking).stages[1].name == "reward"
    with pytest.raises(ValidationError, match=r"stages.1.* needs a `reward` stage before it"):
        read({"sft": {}}, asking, {"reward": {}})


def test_a_reward_model_alone_trains_no_adapter() -> None:
    with pytest.raises(ValidationError, match="trains no adapter"):
        read({"reward": {}})


def test_adaloras_ranks_can_only_shrink() -> None:
    with pytest.raises(ValidationError, match="start_r 4 lies below r 8"):
        TrainConfig.model_validate({"lora": {"method": "adalora", "r": 8, "adalora": {"start_r": 4}}})
