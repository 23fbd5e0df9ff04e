import json
from pathlib import Path
from typing import Any

import pytest
from tinymodels import ARCHITECTURES
from training_runs import settings, tiny_base, train

from pocketloop.contracts.errors import ConfigError, ExportError
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import LoraConfig, TrainConfig
from pocketloop.models.bases import load_base, load_with_adapter
from pocketloop.training.adalora import add_orthogonality, check_first_stage, fold, is_adalora, orthogonality
from pocketloop.training.adapters import new_adapter, open_adapter, save_adapter

IDS = [[5, 6, 7, 8, 9, 10, 11, 12]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return tiny_base(tmp_path_factory.mktemp("bases") / "llama", "llama")


def shape(method: str = "lora", **more: Any) -> LoraConfig:
    return LoraConfig.model_validate({"method": method, "r": 4, "alpha": 8, "dropout": 0, **more})


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor(IDS)).logits.float()


def shake(model: Any, seed: int = 0) -> Any:
    """Give every trained weight a value, so that the adapter does something."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for _, weight in model.named_parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model


@pytest.mark.parametrize("method", ["lora", "adalora", "dora", "qlora"])
def test_a_fresh_adapter_changes_nothing_and_a_saved_one_is_the_same_again(
    base: BaseConfig, tmp_path: Path, method: str
) -> None:
    import torch

    plain, _ = load_base(base, "float32", four_bit=method == "qlora")
    before = logits(plain)
    model = new_adapter(plain, shape(method))
    torch.testing.assert_close(logits(model), before)
    after = logits(shake(model))
    assert (after - before).abs().max() > 0.01
    save_adapter(model, tmp_path / "adapter", base.base)
    opened = open_adapter(load_base(base, "float32", four_bit=method == "qlora")[0], tmp_path / "adapter")
    torch.testing.assert_close(logits(opened), after)


def test_a_module_that_the_base_does_not_have_is_named_beside_those_it_has(base: BaseConfig) -> None:
    model, _ = load_base(base, "float32")
    with pytest.raises(ConfigError, match=r"no linear module c_attn; it has down_proj, gate_proj, k_proj, .*v_proj"):
        new_adapter(model, shape(targets=["q_proj", "c_attn"]))


def test_named_targets_are_the_only_modules_that_are_trained(base: BaseConfig) -> None:
    model = new_adapter(load_base(base, "float32")[0], shape(targets=["q_proj", "v_proj"]))
    trained = {
        name.split(".lora_")[0].rpartition(".")[2] for name, weight in model.named_parameters() if weight.requires_grad
    }
    assert trained == {"q_proj", "v_proj"}


@pytest.mark.parametrize(("method", "divisor"), [("lora", 4**0.5), ("adalora", 6**0.5)])
def test_a_rank_stabilized_adapter_scales_by_the_ranks_root(base: BaseConfig, method: str, divisor: float) -> None:
    model = new_adapter(load_base(base, "float32")[0], shape(method, rank_stabilized=True))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    scale = layer.scaling["default"] / (layer.ranknum["default"].item() if method == "adalora" else 1)
    assert scale == pytest.approx(8 / divisor)


def test_weights_in_four_bits_take_an_eighth_and_answer_nearly_the_same(base: BaseConfig, tmp_path: Path) -> None:
    import torch
    from bitsandbytes.nn import Params4bit

    wide = tiny_base(tmp_path / "wide", "llama", hidden=256)
    whole, _ = load_base(wide, "float32")
    small, _ = load_base(wide, "float32", four_bit=True)
    packed = [weight for weight in small.parameters() if isinstance(weight, Params4bit)]
    assert len(packed) == 7 * 2
    assert all(weight.dtype == torch.uint8 and weight.quant_state.nested for weight in packed)
    layer, original = small.model.layers[0].mlp.up_proj.weight, whole.model.layers[0].mlp.up_proj.weight
    state = layer.quant_state
    stored = layer.numel() + state.absmax.numel() + 4 * state.state2.absmax.numel()
    assert 8 * stored / original.numel() == pytest.approx(4.127, abs=0.1)  # 4 + 8/64 + 32/(64 * 256) bits a weight
    assert torch.nn.functional.cosine_similarity(logits(small), logits(whole), dim=-1).min() > 0.95
    assert is_adalora(small) is False


def test_an_adapter_over_four_bits_is_trained_in_float32_and_says_lora(base: BaseConfig, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    report = train(base, tmp_path / "adapter", settings({"method": "qlora", "r": 4}, epochs=4))
    losses = [loss for _, loss in report.stages[0].curves["loss"]]
    assert losses[-1] < losses[0]
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}
    assert any((tensor.bfloat16().float() != tensor).any() for tensor in tensors.values())
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    whole = load_base(base, "float32")[0].num_parameters()
    assert (report.parameters, report.trainable) == (whole + report.trainable, sum(t.numel() for t in tensors.values()))


def test_doras_magnitudes_are_trained(base: BaseConfig, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    train(base, tmp_path / "adapter", settings({"method": "dora", "r": 4}, epochs=1))
    fresh = new_adapter(load_base(base, "float32")[0], shape("dora"))
    save_adapter(fresh, tmp_path / "fresh", base.base)
    trained, untrained = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "fresh"))
    magnitudes = [name for name in trained if "magnitude" in name]
    assert len(magnitudes) == 7 * 2
    assert all((trained[name] != untrained[name]).any() for name in magnitudes)


def test_the_orthogonality_term_is_in_the_loss_and_its_gradient_as_peft_defines_it(base: BaseConfig) -> None:
    """Oracle: peft adds the term itself when its model is given labels."""
    import torch

    model = shake(new_adapter(load_base(base, "float32")[0], shape("adalora", adalora={"orthogonality": 0.3})))
    batch = {"input_ids": torch.tensor(IDS), "labels": torch.tensor(IDS)}

    class Plain:
        class accelerator:
            @staticmethod
            def unwrap_model(wrapped: Any) -> Any:
                return wrapped

        def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False) -> Any:
            loss = model.get_base_model()(**inputs).loss  # without peft's own addition
            return (loss, {}) if return_outputs else loss

    trainer = Plain()
    add_orthogonality(trainer, 0.3)
    model.train()
    ours = trainer.compute_loss(model, batch)
    ours.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    assert trainer.compute_loss(model, batch, return_outputs=True)[0].item() == pytest.approx(ours.item())
    model.zero_grad()
    theirs = model(**batch).loss
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad)
    model.eval()
    with torch.no_grad():
        assert trainer.compute_loss(model, batch).item() == pytest.approx(
            ours.item() - 0.3 * orthogonality(model).item(), rel=1e-5
        )


def test_adalora_gives_ranks_to_the_modules_that_need_them_and_ends_as_plain_lora(
    base: BaseConfig, tmp_path: Path
) -> None:
    training = settings({"method": "adalora", "r": 2, "alpha": 8}, epochs=5)
    report = train(base, tmp_path / "adapter", training)
    assert len(report.ranks) == 7 * 2
    assert len(set(report.ranks.values())) > 1
    assert sum(report.ranks.values()) == 2 * len(report.ranks)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["rank_pattern"] == {name: rank for name, rank in report.ranks.items() if rank}
    curves = report.stages[0].curves
    terms = [term for _, term in curves["orthogonality"]]
    assert len(terms) == len(curves["loss"])
    assert terms[0] == pytest.approx(0.5 * (3**0.5), rel=0.05)  # nearly nothing is in P and Q yet: the norm of I
    assert terms[-1] < terms[0]
    assert curves["loss"][-1][1] == pytest.approx(curves["validation_loss"][-1][1], rel=0.5)  # both without the term


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folded_adapter_computes_what_peft_computes(tmp_path: Path, architecture: Any) -> None:
    import torch

    config = tiny_base(tmp_path / "base", architecture)
    model = shake(new_adapter(load_base(config, "float32")[0], shape("adalora")))
    with torch.no_grad():
        singular = [weight for name, weight in model.named_parameters() if "lora_E" in name]
        for place, values in enumerate(singular):
            values[: place % 7] = 0  # up to all six triplets of a module
    expected = logits(model)
    folded, ranks = fold(model)
    torch.testing.assert_close(logits(folded), expected, rtol=1e-4, atol=1e-4)
    assert set(ranks.values()) == set(range(7))
    save_adapter(folded, tmp_path / "adapter", config.base)
    torch.testing.assert_close(
        logits(load_with_adapter(config, tmp_path / "adapter", "float32")[0]), expected, rtol=1e-4, atol=1e-4
    )


def test_adalora_cannot_begin_with_a_stage_that_gives_up_no_ranks() -> None:
    stages: list[dict[str, Any]] = [{"reward": {}}, {"ppo": {}}]
    training = TrainConfig.model_validate({"lora": {"method": "adalora"}, "stages": stages})
    with pytest.raises(ConfigError, match=r"train.stages.1.ppo: AdaLoRA gives up its ranks in the first stage"):
        check_first_stage(training)
    check_first_stage(TrainConfig.model_validate({"lora": {"method": "adalora"}, "stages": [{"sft": {}}, *stages]}))


def test_ranks_that_begin_where_they_end_are_left_alone(base: BaseConfig, tmp_path: Path) -> None:
    report = train(
        base, tmp_path / "adapter", settings({"method": "adalora", "r": 2, "adalora": {"start_r": 2}}, epochs=1)
    )
    assert set(report.ranks.values()) == {2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"rank_stabilized": True}, {"method": "adalora"}])
def test_ranks_and_scales_of_every_kind_reach_the_phones_file(
    base: BaseConfig, tmp_path: Path, kind: dict[str, Any]
) -> None:
    """Oracle: peft's merged weights against the factors in the GGUF file, scaled as llama.cpp does: alpha / rank."""
    import numpy as np
    from gguf import GGUFReader

    from pocketloop.export.gguf_lora import convert_lora

    train(base, tmp_path / "adapter", settings({"r": 2, **kind}, epochs=2))
    convert_lora(tmp_path / "adapter", Path(base.source), "0" * 64, tmp_path / "adapter.gguf", "F32")
    reader = GGUFReader(tmp_path / "adapter.gguf")
    alpha = float(reader.fields["adapter.lora.alpha"].parts[-1][0])
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    model = load_with_adapter(base, tmp_path / "adapter", "float32")[0].get_base_model()
    compared = 0
    for place, layer in enumerate(model.model.layers):
        for name, module in {
            "ffn_up": layer.mlp.up_proj,
            "ffn_down": layer.mlp.down_proj,
            "attn_v": layer.self_attn.v_proj,
        }.items():
            if not hasattr(module, "get_delta_weight"):
                continue
            a, b = (found[f"blk.{place}.{name}.weight.lora_{factor}"] for factor in "ab")
            np.testing.assert_allclose(
                alpha / len(a) * b @ a, module.get_delta_weight("default").detach().numpy(), atol=1e-5
            )
            compared += 1
    assert compared


def test_dora_cannot_be_in_a_phones_adapter_file_and_the_refusal_says_so(base: BaseConfig, tmp_path: Path) -> None:
    from pocketloop.export.gguf_lora import convert_lora

    save_adapter(new_adapter(load_base(base, "float32")[0], shape("dora")), tmp_path / "adapter", base.base)
    with pytest.raises(ExportError, match="DoRA cannot be part of a GGUF adapter"):
        convert_lora(tmp_path / "adapter", Path(base.source), "0" * 64, tmp_path / "adapter.gguf")
