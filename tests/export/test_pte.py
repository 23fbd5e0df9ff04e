import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketloop.contracts.errors import ConfigError, ExportError, ModelError
from pocketloop.contracts.files import sha256_file
from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_config, load_lowering
from pocketloop.contracts.lowering import Lowering
from pocketloop.contracts.recipe import BaseConfig, ParityConfig
from pocketloop.export.parity import pte_parity
from pocketloop.export.pte import LoweredModel, is_whole, lower_adapter, lower_base, lower_merged
from pocketloop.export.pte_factors import write_factors
from tests.pte_samples import CACHE, EXACT, QUANTIZED, adapters, environment, held_out, saved, windowed
from tests.tinymodels import LLAMA3_ROPE, Architecture, save_tiny_adapter, save_tiny_model

THRESHOLDS = ParityConfig(min_top1_pte=0.5, max_kl_pte=0.5, max_perplexity_pte=2)
"""For 4-bit weights drawn at random, which have no slack; trained models keep the default bounds."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def config(models: Path) -> BaseConfig:
    return windowed(models / "gemma")


@pytest.fixture(scope="module")
def two(models: Path, config: BaseConfig) -> tuple[Path, Path]:
    return adapters(Path(config.source), models, alpha=32)


@pytest.fixture(scope="module")
def base(config: BaseConfig) -> LoweredModel:
    return lower_base(config, QUANTIZED, cache=CACHE, environment=environment())


@pytest.fixture(scope="module")
def beside(config: BaseConfig, two: tuple[Path, Path], base: LoweredModel) -> list[LoweredModel]:
    return [lower_adapter(config, one, base, QUANTIZED, cache=CACHE, environment=environment()) for one in two]


@pytest.mark.slow
def test_adapters_of_any_rank_and_target_share_one_file_of_weights(
    base: LoweredModel, beside: list[LoweredModel]
) -> None:
    assert {one.manifest.data_digest for one in beside} == {sha256_file(base.data)}
    assert not any(one.data.exists() for one in beside)
    assert len({one.manifest.program_digest for one in [base, *beside]}) == 3
    assert base.manifest.quantized_linears == 8
    assert base.manifest.fallback_linears == 0


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_an_adapter_beside_shared_weights_says_what_peft_says(
    config: BaseConfig, two: tuple[Path, Path], base: LoweredModel, beside: list[LoweredModel], which: int
) -> None:
    report = pte_parity(
        config,
        two[which],
        beside[which].folder,
        held_out(),
        THRESHOLDS,
        data=base.data,
        environment=environment(),
    )
    assert report.passed, report
    (result,) = report.results
    assert result.token_ids_equal
    assert result.kl < report.adapter_effect


@pytest.mark.slow
def test_an_adapter_that_was_not_applied_fails_parity(
    config: BaseConfig, two: tuple[Path, Path], base: LoweredModel
) -> None:
    lax = ParityConfig(min_top1_pte=0, max_kl_pte=1e9, max_perplexity_pte=1e9)
    report = pte_parity(config, two[0], base.folder, held_out(), lax, environment=environment())
    assert not report.passed
    assert report.results[0].passed


@pytest.mark.slow
def test_a_merged_model_says_what_peft_says(config: BaseConfig, two: tuple[Path, Path]) -> None:
    merged = lower_merged(config, two[0], QUANTIZED, cache=CACHE, environment=environment())
    report = pte_parity(config, two[0], merged.folder, held_out(), THRESHOLDS, environment=environment())
    assert report.passed, report


@pytest.mark.slow
def test_flipped_weights_fail_parity_or_do_not_load(config: BaseConfig, two: tuple[Path, Path], tmp_path: Path) -> None:
    whole = lower_merged(config, two[0], QUANTIZED, cache=CACHE, environment=environment()).copy_to(tmp_path / "m")
    content = bytearray(whole.program.read_bytes())
    for at in range(len(content) // 2, len(content), 7):
        content[at] ^= 0x40
    whole.program.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        pte_parity(config, two[0], whole.folder, held_out(), THRESHOLDS, environment=environment())
    forged = whole.manifest.model_copy(
        update={"files": whole.manifest.files | {"model.pte": sha256_file(whole.program)}}
    )
    (whole.folder / "manifest.json").write_text(forged.model_dump_json(), encoding="utf-8")
    try:
        assert not pte_parity(config, two[0], whole.folder, held_out(), THRESHOLDS, environment=environment()).passed
    except ModelError as error:
        assert "model.pte" in str(error) or "ExecuTorch" in str(error)


def of(architecture: Architecture, models: Path) -> tuple[BaseConfig, Path]:
    """A base of one layer, and an adapter for it."""
    settings = {"rope": LLAMA3_ROPE} if architecture == "llama" else {}
    config = saved(models / architecture, architecture, layers=1, **settings)
    return config, save_tiny_adapter(Path(config.source), models / f"{architecture}-adapter", seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_every_architecture_is_lowered_exactly_in_float32(models: Path, architecture: Architecture) -> None:
    config, adapter = of(architecture, models)
    lowered = lower_merged(config, adapter, EXACT, cache=CACHE, environment=environment())
    strict = ParityConfig(min_top1_pte=1, max_kl_pte=1e-5)
    report = pte_parity(config, adapter, lowered.folder, held_out(), strict, environment=environment())
    assert report.passed, report


@pytest.mark.slow
def test_a_killed_lowering_leaves_nothing_behind_and_done_again_gives_the_same_bytes(
    models: Path, tmp_path: Path
) -> None:
    config, adapter = of("llama", models)
    whole = lower_merged(config, adapter, EXACT, cache=CACHE, environment=environment())
    code = (
        "import sys; from pathlib import Path; from tests.pte_samples import *; "
        "from pocketloop.export.pte import lower_merged\n"
        "config = BaseConfig.model_validate_json(sys.argv[1])\n"
        "lower_merged(config, Path(sys.argv[2]), EXACT, cache=Path(sys.argv[3]), environment=environment())\n"
    )
    command = [sys.executable, "-c", code, config.model_dump_json(), str(adapter), str(tmp_path)]
    process = subprocess.Popen(command, cwd=project_root(), stderr=subprocess.DEVNULL)
    log = tmp_path / "pte" / f".{whole.folder.name}.work" / "lower.log"
    while not log.is_file() and process.poll() is None:
        time.sleep(0.2)
    time.sleep(1)
    process.kill()
    process.wait()
    assert log.is_file()
    assert not is_whole(tmp_path / "pte" / whole.folder.name)
    again = lower_merged(config, adapter, EXACT, cache=tmp_path, environment=environment())
    assert again.manifest.files == whole.manifest.files
    assert not log.parent.exists()


@pytest.mark.slow
def test_what_was_lowered_is_found_again_but_not_for_other_shared_weights(
    config: BaseConfig, two: tuple[Path, Path], base: LoweredModel, beside: list[LoweredModel], tmp_path: Path
) -> None:
    written = beside[1].folder.stat().st_mtime_ns
    assert lower_base(config, QUANTIZED, cache=CACHE, environment=environment()) == base
    assert lower_adapter(config, two[1], base, QUANTIZED, cache=CACHE, environment=environment()) == beside[1]
    forged = base.copy_to(tmp_path / "other")._replace(
        manifest=base.manifest.model_copy(update={"data_digest": "0" * 64})
    )
    with pytest.raises(ExportError, match="lower it again"):
        lower_adapter(config, two[1], forged, QUANTIZED, cache=CACHE, environment=environment())
    assert beside[1].folder.stat().st_mtime_ns == written


def test_precisions_that_answer_garbage_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    for wrong, right in (("4w", "8da4w"), ("8w", "8da8w")):
        path.write_text(f"backend: xnnpack\nlinear: {wrong}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=f"linear {wrong} on xnnpack .* garbage; use {right}"):
            load_config(path, Lowering)
    path.write_text("backend: coreml\nlinear: 8da4w\nembedding: fp32\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not supported on coreml"):
        load_config(path, Lowering)


def test_every_lowering_that_is_configured_loads_and_says_whether_it_runs_here() -> None:
    names = sorted(path.stem for path in (project_root() / "configs" / "lowerings").glob("*.yaml"))
    assert {name for name in names if load_lowering(name).runs_here} == {
        "xnnpack-8da4w",
        "xnnpack-8da8w",
        "xnnpack-small",
    }
    assert {load_lowering(name).backend for name in names} == {"xnnpack", "vulkan", "coreml", "qnn"}


def test_factors_hold_what_peft_adds_whatever_its_scaling(tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    config = saved(tmp_path / "base", "qwen3", layers=1)
    adapter = save_tiny_adapter(
        tmp_path / "base",
        tmp_path / "adapter",
        use_rslora=True,
        rank_pattern={"q_proj": 2},
        alpha_pattern={"v_proj": 3},
    )
    write_factors(config, adapter, tmp_path / "factors.safetensors")
    factors = load_file(tmp_path / "factors.safetensors")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(adapter))
    modules = {name.rsplit(".", 1)[0] for name in factors}
    assert len(modules) == 7
    for name in modules:
        delta = model.base_model.model.get_submodule(name).get_delta_weight("default").float()
        assert (factors[f"{name}.b"] @ factors[f"{name}.a"] - delta).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"use_dora": True}, "beyond plain factors"), ({"modules_to_save": ["lm_head"]}, "as a whole")],
)
def test_what_cannot_lie_beside_shared_weights_is_to_be_merged(
    tmp_path: Path, settings: dict[str, object], why: str
) -> None:
    config = saved(tmp_path / "base", "llama", layers=1)
    adapter = save_tiny_adapter(tmp_path / "base", tmp_path / "adapter", **settings)
    with pytest.raises(ExportError, match=rf"{why}.*form: merged"):
        write_factors(config, adapter, tmp_path / "factors.safetensors")


def test_what_would_be_wrong_or_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_model(tmp_path / "base", "llama", layers=1)
    config = BaseConfig(base="tiny", source=str(tmp_path / "base"), architecture="llama")
    with pytest.raises(ExportError, match="knows 512 positions"):
        lower_base(config, Lowering(context=1024), cache=tmp_path)
    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    with pytest.raises(ExportError, match="QNN_SDK_ROOT"):
        lower_merged(config, None, load_lowering("qnn"), cache=tmp_path)
    with pytest.raises(ExportError, match="coreml keeps weights in the program.*form: merged"):
        lower_base(config, load_lowering("coreml"), cache=tmp_path)
    settings = json.loads((tmp_path / "base" / "config.json").read_text())
    settings["rope_parameters"] = {"rope_type": "longrope", "rope_theta": 1e4}
    (tmp_path / "base" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ExportError, match="rope type longrope"):
        lower_base(config, Lowering(context=128, prefill=16), cache=tmp_path)
