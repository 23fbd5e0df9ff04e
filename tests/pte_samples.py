"""Tiny models lowered for ExecuTorch once for all tests, in the checkout's own cache: a lowering takes half a minute.

The cache knows a lowered model by all that determines it, so a changed script or model is lowered anew.
"""

import json
from pathlib import Path

from pocketloop.contracts.files import write_json
from pocketloop.contracts.home import project_root
from pocketloop.contracts.lowering import Lowering
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.models.pte_env import PteEnvironment, pte_environment
from tests.tinymodels import CORPUS, Architecture, save_tiny_adapter, save_tiny_model

CACHE = project_root() / ".pocketloop" / "cache"
EXACT = Lowering(linear="fp32", embedding="fp32", context=128, prefill=15)
QUANTIZED = Lowering(linear="8da4w", embedding="8w", context=160)
"""As `configs/lowerings/xnnpack-8da4w.yaml` says, at the context of `test_version.py`'s recipe: lowered once."""


def environment() -> PteEnvironment:
    """ExecuTorch's environment in the checkout's cache, made by the first test that needs it (about a minute)."""
    return pte_environment(CACHE)


def gemma(folder: Path) -> BaseConfig:
    """A Gemma with one sliding layer (16 tokens) and one full one."""
    kinds = ["sliding_attention", "full_attention"]
    return saved(folder, "gemma3", layers=2, layer_types=kinds)


def windowed(folder: Path) -> BaseConfig:
    """A Gemma with a sliding layer alone: what lowering takes grows with the layers."""
    return saved(folder, "gemma3", layers=1, layer_types=["sliding_attention"])


def saved(folder: Path, architecture: Architecture, **settings: object) -> BaseConfig:
    """A tiny model's configuration, its folder written."""
    save_tiny_model(folder, architecture, **settings)  # type: ignore[arg-type]
    return BaseConfig(base="tiny", source=str(folder), architecture=architecture, context=128, dtype="float32")


def adapters(base: Path, folder: Path, alpha: int = 8) -> tuple[Path, Path]:
    """Two adapters of different rank and targets; `alpha` is the first one's, higher where few layers add it up."""
    first = save_tiny_adapter(base, folder / "first", seed=1, lora_alpha=alpha)
    second = save_tiny_adapter(base, folder / "second", seed=2, r=8, target_modules=["q_proj", "v_proj"])
    for adapter in (first, second):  # peft keeps them as a set: in another order in each process
        settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        write_json(adapter / "adapter_config.json", settings | {"target_modules": sorted(settings["target_modules"])})
    return first, second


def held_out() -> list[str]:
    """Texts of up to some sixty tokens: longer than a call takes, and than the sliding window."""
    return [" ".join(CORPUS[at : at + 2]) for at in range(0, 6, 2)]
