"""A plan's numbers against what peft, autograd, torch's own counter and the operating system say."""

from pathlib import Path
from typing import Any

import pytest
from tinymodels import ARCHITECTURES, save_tiny_model

from pocketloop.contracts.devices import Device, Devices
from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_base_config, load_config
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import LoraConfig, TrainConfig
from pocketloop.training.budget import TrainingPlan, plan_training
from pocketloop.training.flops import training_flops
from pocketloop.training.lengths import DataLengths, Lengths
from pocketloop.training.memory import Batch, Precision, token_bytes, weight_bytes
from pocketloop.training.remedies import refuse_if_too_large, what_would_fit
from pocketloop.training.shape import read_shape, trainable_parameters

PUBLISHED = {  # as their model cards and safetensors indexes count them
    "gemma-3-270m-it": 268_098_176,
    "gemma-3-1b-it": 999_885_952,
    "gemma-3-4b-it": 3_880_263_168,
    "llama-3.2-1b-instruct": 1_235_814_400,
    "llama-3.2-3b-instruct": 3_212_749_824,
    "qwen-3-0.6b": 596_049_920,
    "qwen-3-1.7b": 1_720_574_976,
}
DEVICES = load_config(project_root() / "configs" / "devices.yaml", Devices).devices
LENGTHS = Lengths(rows=1000, tokens=40_000, answers=15_000, longest=80, longest_answer=40)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    folder = save_tiny_model(tmp_path_factory.mktemp("base") / request.param, request.param)
    return BaseConfig(base="random", source=str(folder), architecture=request.param)


def empty_model(base: BaseConfig) -> Any:
    """The base without any memory behind its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base.source), dtype=torch.float32)


def plan_of(base: str, device: str | Device, data: DataLengths | None = None, **training: Any) -> TrainingPlan:
    found = DEVICES[device] if isinstance(device, str) else device
    return plan_training(load_base_config(base), TrainConfig.model_validate(training), found, data)


def test_a_base_s_parameters_are_counted_from_its_configuration(base: BaseConfig) -> None:
    assert read_shape(base).parameters == empty_model(base).num_parameters()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_shapes_have_the_published_number_of_parameters(name: str) -> None:
    assert read_shape(load_base_config(name)).parameters == PUBLISHED[name]


@pytest.mark.parametrize(
    "lora",
    [
        {"method": "lora", "r": 5},
        {"method": "lora", "targets": ["q_proj", "v_proj"]},
        {"method": "lora", "targets": ["0.mlp.down_proj", "lm_head"]},
        {"method": "dora", "r": 3},
        {"method": "adalora", "r": 4},
        {"method": "adalora", "r": 4, "adalora": {"start_r": 12}},
    ],
    ids=str,
)
def test_trainable_parameters_are_peft_s_own_count(base: BaseConfig, lora: dict[str, Any]) -> None:
    from pocketloop.training.adapters import new_adapter

    config = LoraConfig.model_validate(lora)
    model = new_adapter(empty_model(base), config)
    counted = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert trainable_parameters(read_shape(base), config) == counted


def test_a_target_that_is_no_module_is_named_with_those_that_are(base: BaseConfig) -> None:
    with pytest.raises(ConfigError, match=r"no module 'c_attn'; its modules are q_proj"):
        trainable_parameters(read_shape(base), LoraConfig(targets=["c_attn"]))


def saved_bytes(base: BaseConfig, layers: int, lora: dict[str, Any], half: bool, attention: str) -> float:
    """What autograd keeps of each token for the backward pass, parameters aside."""
    import torch
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model
    from peft.helpers import disable_input_dtype_casting
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.source)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    dtype = torch.bfloat16 if half else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model = get_peft_model(model, PeftLora(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **lora)).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        tokens = tensor.numel() % ROWS == 0 and tensor.numel() >= ROWS * LENGTH  # the adapters' own copies are no rows
        if tokens and tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(5, 100, (ROWS, LENGTH))
    padded = torch.ones_like(ids)
    padded[0, -7:] = 0
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        disable_input_dtype_casting(model, active=half),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        decoder = model.get_base_model().base_model
        held = decoder(input_ids=ids, attention_mask=padded, use_cache=False).last_hidden_state
    assert held.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / (ROWS * LENGTH)


ROWS, LENGTH = 16, 64


@pytest.mark.parametrize(
    ("lora", "half", "attention"),
    [
        ({}, False, "eager"),
        ({}, False, "sdpa"),
        ({}, True, "eager"),
        ({"lora_dropout": 0.1}, False, "eager"),
        ({"use_dora": True}, False, "eager"),
    ],
    ids=str,
)
def test_a_block_keeps_of_a_token_what_autograd_keeps(
    base: BaseConfig, lora: dict[str, Any], half: bool, attention: str
) -> None:
    measured = saved_bytes(base, 2, lora, half, attention) - saved_bytes(base, 1, lora, half, attention)
    method: Any = "dora" if lora.get("use_dora") else "lora"
    config = LoraConfig(method=method, r=4, dropout=lora.get("lora_dropout", 0.0))
    batch = Batch(ROWS, LENGTH, 0, fused_attention=attention == "sdpa", checkpointing=False)
    assert token_bytes(read_shape(base), config, Precision(half), batch) == pytest.approx(measured, rel=0.06)


def test_a_step_s_operations_are_those_that_torch_counts(base: BaseConfig) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pocketloop.training.adapters import new_adapter

    lora = LoraConfig(r=4, dropout=0.0)
    model = new_adapter(empty_model(base), lora).train()
    ids = torch.zeros((ROWS, LENGTH), dtype=torch.long, device="meta")
    model.set_attn_implementation("eager")  # computes the whole square of scores, of which a plan counts half
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids).logits.float().mean().backward()
    shape = read_shape(base)
    counted = training_flops(shape, lora, ROWS * LENGTH, ROWS * LENGTH, 2 * LENGTH)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_four_bits_take_four_bits_and_their_constants() -> None:
    shape = read_shape(load_base_config("llama-3.2-1b-instruct"))
    whole, packed = (weight_bytes(shape, Precision(True, quantized)) for quantized in (False, True))
    bits = 8 * (packed - 2 * (shape.parameters - shape.linear_parameters)) / shape.linear_parameters
    assert whole == 2 * shape.parameters
    assert bits == pytest.approx(4.127, abs=1e-3)  # Dettmers et al., section 3: 0.127 bits a parameter


def test_activations_are_computed_again_only_where_memory_asks_for_it() -> None:
    asked = {
        device: plan_of("gemma-3-1b-it", device, DataLengths(examples=LENGTHS)).stages[0].checkpointing
        for device in ("t4", "a100")
    }
    assert asked["a100"] is False
    long = plan_of("gemma-3-1b-it", "l4", stages=[{"sft": {"max_length": 2048, "batch_size": 8}}])
    assert long.stages[0].checkpointing


def test_what_is_said_to_fit_fits_and_what_does_not_is_refused_with_it() -> None:
    base, device = load_base_config("llama-3.2-3b-instruct"), DEVICES["l4"]
    training = TrainConfig.model_validate({"stages": [{"dpo": {"batch_size": 64, "max_length": 512}}]})
    plan = plan_training(base, training, device)
    remedies = what_would_fit(base, training, device)
    assert not plan.fits
    assert remedies
    for remedy in remedies:
        changed = training.model_dump(mode="json")
        for setting in remedy.split():
            key, _, value = setting.partition("=")
            *path, last = key.removeprefix("train.").split(".")
            at: Any = changed
            for part in path:
                at = at[int(part)] if part.isdigit() else at[part]
            at[last] = int(value) if value.isdigit() else value
        assert plan_training(base, TrainConfig.model_validate(changed), device).fits, remedy
    with pytest.raises(ModelError, match=r"train\.stages\.0\.dpo needs [\d.]+ GB .* it would fit with --set"):
        refuse_if_too_large(plan, remedies)


def test_where_nothing_helps_a_smaller_base_is_advised() -> None:
    small = Device(title="a watch", memory_gb=1.2, tflops_fp32=0.1, bandwidth_gbs=10)
    base, training = load_base_config("gemma-3-4b-it"), TrainConfig()
    plan = plan_training(base, training, small)
    with pytest.raises(ModelError, match="take a smaller base"):
        refuse_if_too_large(plan, what_would_fit(base, training, small))


def test_tokens_and_time_are_unknown_without_data_and_counted_with_it() -> None:
    unknown = plan_of("tiny", "t4").stages[0]
    assert (unknown.tokens, unknown.seconds) == (None, None)
    known = plan_of("tiny", "t4", DataLengths(examples=LENGTHS), stages=[{"sft": {"epochs": 3}}]).stages[0]
    assert (known.tokens, known.steps, known.length) == (120_000, 188, 80)
    assert known.seconds is not None
    assert known.peak < unknown.peak


def test_two_processes_halve_the_time_and_a_sharded_base_its_weights() -> None:
    data = DataLengths(examples=LENGTHS)
    one, two, sharded = (
        plan_of("gemma-3-1b-it", "l4", data, resources=resources).stages[0]
        for resources in ({}, {"processes": 2}, {"processes": 2, "strategy": "fsdp"})
    )
    assert one.seconds == pytest.approx(2 * (two.seconds or 0))
    assert two.memory.weights == one.memory.weights == 2 * sharded.memory.weights
    with pytest.raises(ConfigError, match="cannot be divided over train.resources.processes 3"):
        plan_of("tiny", "t4", resources={"processes": 3})


def test_every_stage_has_a_plan() -> None:
    data = DataLengths(LENGTHS, LENGTHS, LENGTHS)
    names = ["sft", "dpo", "kto", "reward", "ppo", "grpo", "rloo"]
    stages: list[Any] = [{name: {}} for name in names] + [{"distill": {"teacher": "gemma-3-4b-it"}}]
    teachers = {"gemma-3-4b-it": read_shape(load_base_config("gemma-3-4b-it"))}
    training = TrainConfig.model_validate({"stages": stages})
    plan = plan_training(load_base_config("gemma-3-1b-it"), training, DEVICES["a100"], data, teachers)
    assert [stage.name for stage in plan.stages] == [*names, "distill"]
    for stage in plan.stages:
        assert stage.seconds is not None
        assert stage.seconds > 0
    needs = {stage.name: stage.memory.models for stage in plan.stages}
    assert needs["sft"] == needs["dpo"] == 0
    assert needs["ppo"] > needs["reward"] > needs["grpo"] > 0
    assert needs["distill"] == 2 * PUBLISHED["gemma-3-4b-it"]
    written = {stage.name: stage.memory.cache for stage in plan.stages}
    assert written["sft"] == 0 < written["grpo"]


def test_a_base_whose_shape_is_nowhere_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    base = BaseConfig(base="unheard-of", source="nobody/unheard-of", architecture="llama")
    with pytest.raises(ModelError, match="configs/shapes.yaml does not list its shape"):
        read_shape(base)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        read_shape(base.model_copy(update={"source": str(tmp_path)}))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "hidden_size": 8}')
    with pytest.raises(ModelError, match="says qwen3, the configuration says llama"):
        read_shape(base.model_copy(update={"source": str(tmp_path)}))
