"""A base's shape from its `config.json` alone: how many parameters it has, where, and how many an adapter adds.

Nothing here loads weights or torch, so that a plan costs nothing.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.home import project_root
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import LoraConfig

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")

_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma3": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "tie_word_embeddings": True},
    "llama": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": False, "head_dim": 128},
}
"""What transformers assumes where a published file says nothing."""


@dataclass(frozen=True)
class Linear:
    """A linear layer of the base: its full name, and how many numbers go in and come out."""

    name: str
    inputs: int
    outputs: int

    @property
    def leaf(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class BaseShape:
    """The sizes that decide about memory and time."""

    base: str
    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    window: int | None = None
    """Tokens that a layer with local attention looks back on."""
    local_layers: int = 0
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False

    @property
    def linears(self) -> list[Linear]:
        """Every linear layer inside the decoder's blocks, in order."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sizes = {
            "self_attn.q_proj": (self.hidden, queries),
            "self_attn.k_proj": (self.hidden, keys),
            "self_attn.v_proj": (self.hidden, keys),
            "self_attn.o_proj": (queries, self.hidden),
            "mlp.gate_proj": (self.hidden, self.intermediate),
            "mlp.up_proj": (self.hidden, self.intermediate),
            "mlp.down_proj": (self.intermediate, self.hidden),
        }
        return [
            Linear(f"model.layers.{layer}.{name}", inputs, outputs)
            for layer in range(self.layers)
            for name, (inputs, outputs) in sizes.items()
        ]

    @property
    def linear_parameters(self) -> int:
        """Weights of the blocks' linear layers: what 4-bit quantization stores in 4 bits, and what a token costs."""
        return sum(linear.inputs * linear.outputs for linear in self.linears)

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding, and of the output layer where that has its own."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def other_parameters(self) -> int:
        """Norms and biases."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        norms = self.norms * self.hidden + (2 * self.head_dim if self.normalizes_queries else 0)
        biases = (queries + 2 * keys) * self.qkv_bias + self.hidden * self.o_bias
        biases += (2 * self.intermediate + self.hidden) * self.mlp_bias
        return self.layers * (norms + biases) + self.hidden

    @property
    def parameters(self) -> int:
        """All of the base's parameters; tied ones count once."""
        return self.linear_parameters + self.embedding_parameters + self.other_parameters

    @property
    def norms(self) -> int:
        """Norms over the hidden state in a block."""
        return 4 if self.architecture == "gemma3" else 2

    @property
    def normalizes_queries(self) -> bool:
        """Whether queries and keys have norms of their own."""
        return self.architecture in ("gemma3", "qwen3")


def read_shape(base: BaseConfig) -> BaseShape:
    """The shape of a base: from its folder, from the hub's cache here, or as published (`configs/shapes.yaml`).

    Raises:
        ModelError: the shape is at none of these places, or is of another architecture than the base's file says.
    """
    config = _published_config(base)
    text: dict[str, Any] = config.get("text_config", config)
    found = str(text.get("model_type", base.architecture)).removesuffix("_text")
    if found != base.architecture:
        raise ModelError(f"base {base.base}: config.json says {found}, the configuration says {base.architecture}")
    text = {**_DEFAULTS[base.architecture], **{key: value for key, value in text.items() if value is not None}}
    try:
        heads = int(text["num_attention_heads"])
        layers = int(text["num_hidden_layers"])
        return BaseShape(
            base=base.base,
            architecture=base.architecture,
            hidden=int(text["hidden_size"]),
            layers=layers,
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads", heads)),
            head_dim=int(text.get("head_dim") or text["hidden_size"] // heads),
            intermediate=int(text["intermediate_size"]),
            vocabulary=int(text["vocab_size"]),
            tied=bool(text["tie_word_embeddings"]),
            window=text.get("sliding_window"),
            local_layers=_local_layers(text, layers),
            qkv_bias=base.architecture == "qwen2" or bool(text.get("attention_bias")),
            o_bias=base.architecture != "qwen2" and bool(text.get("attention_bias")),
            mlp_bias=bool(text.get("mlp_bias")),
        )
    except KeyError as error:
        raise ModelError(f"base {base.base}: its config.json has no {error.args[0]}") from None


def targeted(shape: BaseShape, lora: LoraConfig) -> list[Linear]:
    """The layers that the adapter changes, by peft's rules: a name is a module's whole name or the end of it.

    Raises:
        ConfigError: a name is no module of the base.
    """
    linears = shape.linears
    if lora.targets == "all-linear":
        return linears
    head = Linear("lm_head", shape.hidden, shape.vocabulary)
    embedding = Linear("model.embed_tokens", shape.vocabulary, shape.hidden)
    known = [*linears, embedding, head]
    for wanted in lora.targets:
        if not any(_matches(linear.name, wanted) for linear in known):
            names = ", ".join([*ATTENTION, *MLP, "embed_tokens", "lm_head"])
            raise ConfigError(
                f"train.lora.targets: base {shape.base} has no module {wanted!r}; its modules are {names}"
            )
    return [linear for linear in known if any(_matches(linear.name, wanted) for wanted in lora.targets)]


def start_rank(lora: LoraConfig) -> int:
    """The rank that a module begins with: AdaLoRA begins with more than it keeps."""
    if lora.method != "adalora":
        return lora.r
    return lora.adalora.start_r or math.ceil(1.5 * lora.r)


def trainable_parameters(shape: BaseShape, lora: LoraConfig) -> int:
    """How many parameters the adapter trains: A and B, with DoRA a magnitude for each output, with AdaLoRA E, too."""
    r = start_rank(lora)
    dora, adalora = lora.method == "dora", lora.method == "adalora"
    return sum(
        r * (linear.inputs + linear.outputs) + dora * linear.outputs + adalora * r for linear in targeted(shape, lora)
    )


def _matches(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith("." + wanted)


def _local_layers(text: dict[str, Any], layers: int) -> int:
    if not text.get("sliding_window") or text.get("use_sliding_window") is False:
        return 0
    types = text.get("layer_types")
    if types:
        return sum(kind == "sliding_attention" for kind in types)
    pattern = text.get("sliding_window_pattern") or text.get("_sliding_window_pattern") or 6
    return layers - layers // int(pattern) if text.get("model_type", "").startswith("gemma3") else 0


def _published_config(base: BaseConfig) -> dict[str, Any]:
    folder = Path(base.source)
    if (folder / "config.json").is_file():
        return _read(folder / "config.json")
    cached = _hub_cache() / f"models--{base.source.replace('/', '--')}" / "snapshots"
    for file in sorted(cached.glob("*/config.json")):
        if base.revision in (None, file.parent.name):
            return _read(file)
    import yaml

    shapes = project_root() / "configs" / "shapes.yaml"
    published: dict[str, Any] = yaml.safe_load(shapes.read_text(encoding="utf-8"))
    if base.base in published:
        return dict(published[base.base])
    raise ModelError(
        f"base {base.base}: {base.source} holds no config.json here, and configs/shapes.yaml does not list its shape; "
        "download the base once, or write its sizes there"
    )


def _hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"{file}:{error.lineno}: not JSON: {error.msg}") from None
    return found
