"""Base models as GGUF: Gemma 3 (text), Llama, Qwen 2 and Qwen 3 from a folder of safetensors.

Tensors are read, changed and written one at a time, so memory stays at one tensor. What llama.cpp assumes and a
configuration contradicts is refused by name. Every key and tensor name comes from the `gguf` package.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pocketloop.contracts.errors import ExportError, ModelError
from pocketloop.contracts.files import atomic_file
from pocketloop.export.gguf_tokenizer import add_tokenizer

GgufDtype = Literal["F16", "F32"]

_ARCHITECTURES = {"gemma3_text": "gemma3", "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_ACTIVATIONS = {"gemma3": "gelu_pytorch_tanh"}
_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_NORMS = {
    "gemma3": ("attn_norm", "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"),
    "llama": ("attn_norm", "ffn_norm"),
    "qwen2": ("attn_norm", "ffn_norm"),
    "qwen3": ("attn_norm", "attn_q_norm", "attn_k_norm", "ffn_norm"),
}
_GEMMA_SLIDING_PATTERN = 6
_GEMMA_27B_LAYERS = 62


class Conversion(NamedTuple):
    """What a conversion wrote: llama.cpp's architecture, the vocabulary's form, and the number of parameters."""

    architecture: str
    vocabulary: str
    parameters: int


def convert_model(
    model_dir: Path, out: Path, dtype: GgufDtype = "F16", *, name: str = "", chat_template: str | None = None
) -> Conversion:
    """Convert the model and tokenizer in `model_dir` to the GGUF file `out`, which appears whole or not at all.

    Matrices are stored as `dtype`, one-dimensional tensors as F32. `name` is what the file calls itself;
    `chat_template` is a file that replaces the tokenizer's own template. Equal inputs give equal bytes.

    Raises:
        ModelError: `model_dir` is not a model folder, or lacks tensors.
        ExportError: the architecture, a setting or the tokenizer has no exact counterpart in llama.cpp.
    """
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    from pocketloop.models.chat import load_tokenizer

    config = load_config(model_dir)
    architecture = architecture_of(config)
    with atomic_file(out) as temporary:
        writer = GGUFWriter(temporary, architecture)
        writer.add_type("model")
        writer.add_name(name or architecture)
        writer.add_file_type(LlamaFileType.MOSTLY_F16 if dtype == "F16" else LlamaFileType.ALL_F32)
        writer.add_quantization_version(GGML_QUANT_VERSION)
        _add_settings(writer, config, architecture)
        form = add_tokenizer(writer, load_tokenizer(model_dir, chat_template), config.vocab_size)
        parameters = _write_tensors(writer, model_dir, config, architecture, dtype)
    return Conversion(architecture, form, parameters)


def load_config(model_dir: Path) -> Any:
    """The text model's transformers configuration, with every default filled in."""
    from transformers import AutoConfig

    if not (model_dir / "config.json").is_file():
        raise ModelError(f"{model_dir} holds no config.json: not a model folder")
    return AutoConfig.from_pretrained(model_dir).get_text_config()


def architecture_of(config: Any) -> str:
    """llama.cpp's name for the architecture of a transformers configuration.

    Raises:
        ExportError: the architecture is unknown, or a setting contradicts what llama.cpp computes.
    """
    architecture = _ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise ExportError(f"architecture {config.model_type!r} cannot be exported; known: {', '.join(_ARCHITECTURES)}")
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    wrong = {
        f"activation {activation!r}": activation != _ACTIVATIONS.get(architecture, "silu"),
        "attention_bias": getattr(config, "attention_bias", False),
        "mlp_bias": getattr(config, "mlp_bias", False),
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "use_sliding_window": getattr(config, "use_sliding_window", False),
    }
    if architecture == "gemma3":
        full = ["full_attention" if (i + 1) % _GEMMA_SLIDING_PATTERN == 0 else "sliding_attention"
                for i in range(config.num_hidden_layers)]  # fmt: skip
        wrong |= {
            f"query_pre_attn_scalar {config.query_pre_attn_scalar} (head_dim is {config.head_dim})":
                config.query_pre_attn_scalar != config.head_dim,
            f"{_GEMMA_27B_LAYERS} layers (llama.cpp takes that for the 27B model and scales attention otherwise)":
                config.num_hidden_layers == _GEMMA_27B_LAYERS,
            "a sliding pattern other than five sliding layers and one full one": list(config.layer_types) != full,
            "use_bidirectional_attention": config.use_bidirectional_attention,
        }  # fmt: skip
    found = next((name for name, is_wrong in wrong.items() if is_wrong), None)
    if found:
        raise ExportError(f"{config.model_type} with {found} cannot be exported: llama.cpp computes it differently")
    return architecture


def _add_settings(writer: Any, config: Any, architecture: str) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = rope_of(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base_swa(rope_of(config, "sliding_attention")["rope_theta"])
        if config.final_logit_softcapping:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture == "llama":
        writer.add_rope_dimension_count(head_dim)
        writer.add_vocab_size(config.vocab_size)


def rope_of(config: Any, layer_type: str = "full_attention") -> dict[str, Any]:
    """The rope parameters of one type of layer; older configurations have `rope_theta` alone.

    Raises:
        ExportError: a rope type that llama.cpp computes differently here.
    """
    parameters = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}
    rope = {"rope_type": "default", **parameters.get(layer_type, parameters)}
    allowed = {"default"} if layer_type == "sliding_attention" else {"default", "linear"}
    if config.model_type == "llama":
        allowed.add("llama3")
    if rope["rope_type"] not in allowed:
        raise ExportError(f"rope type {rope['rope_type']!r} of {config.model_type} ({layer_type}) cannot be exported")
    return rope


def llama3_factors(rope: dict[str, Any], head_dim: int) -> Any:
    """Divisors of the rotary frequencies under Llama 3.1's scaling, float32 [head_dim / 2].

    Wavelengths above original/low are stretched by `factor`, those below original/high kept, those between
    interpolated (Llama 3.1 report; transformers' `llama3` rope type).
    """
    import numpy as np

    original = rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    wavelength = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def permute_heads(matrix: Any, heads: int) -> Any:
    """Reorder the rows of a query or key matrix from split halves to adjacent pairs, as llama.cpp's `llama` rotates."""
    rows = matrix.shape[0]
    return matrix.reshape(heads, 2, rows // heads // 2, *matrix.shape[1:]).swapaxes(1, 2).reshape(matrix.shape)


def _write_tensors(writer: Any, model_dir: Path, config: Any, architecture: str, dtype: GgufDtype) -> int:
    """Declare all tensors, then write them in the same order; returns the number of parameters."""
    sources = _locate(model_dir, config, architecture)
    handles: dict[Path, Any] = {}
    extra: dict[str, Any] = {}
    rope = rope_of(config)
    if rope["rope_type"] == "llama3":
        extra["rope_freqs.weight"] = llama3_factors(rope, config.head_dim)
    import numpy as np
    from safetensors import safe_open

    parameters = 0
    for name, factors in extra.items():
        writer.add_tensor_info(name, factors.shape, factors.dtype, factors.nbytes)
    for target, (path, name) in sources.items():
        handles.setdefault(path, safe_open(path, framework="pt"))
        shape = handles[path].get_slice(name).get_shape()
        stored = np.dtype(np.float16 if dtype == "F16" and len(shape) > 1 else np.float32)
        writer.add_tensor_info(target, shape, stored, math.prod(shape) * stored.itemsize)
        parameters += math.prod(shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for factors in extra.values():
        writer.write_tensor_data(factors)
    for target, (path, name) in sources.items():
        writer.write_tensor_data(_converted(handles[path].get_tensor(name), target, config, architecture, dtype))
    writer.close()
    return parameters


def _converted(tensor: Any, target: str, config: Any, architecture: str, dtype: GgufDtype) -> Any:
    import torch

    if target == "token_embd.weight" and tensor.shape[0] != config.vocab_size:
        raise ModelError(f"the embedding has {tensor.shape[0]} rows, config.json says vocab_size {config.vocab_size}")
    if architecture == "gemma3" and target.endswith("norm.weight"):
        tensor = tensor.float() + 1  # Gemma stores the norm's distance from one
    if architecture == "llama" and ".attn_q." in target:
        tensor = permute_heads(tensor, config.num_attention_heads)
    if architecture == "llama" and ".attn_k." in target:
        tensor = permute_heads(tensor, config.num_key_value_heads)
    stored = tensor.to(torch.float16 if dtype == "F16" and tensor.dim() > 1 else torch.float32).contiguous()
    # Both extremes are NaN where any value is; a hundred times faster than asking every value.
    if not all(math.isfinite(extreme) for extreme in stored.aminmax()):
        raise ExportError(f"{target} has values that are not finite in {dtype}")
    return stored.numpy()


def _locate(model_dir: Path, config: Any, architecture: str) -> dict[str, tuple[Path, str]]:
    """Where each GGUF tensor comes from: its name to (file, source tensor), in the model's order."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    found: dict[str, tuple[Path, str]] = {}
    for path, name in _source_tensors(model_dir):
        plain = name.replace("language_model.model.", "model.").replace("model.language_model.", "model.")
        if "vision_tower." in name or "multi_modal_projector." in name:
            continue
        target = names.get_name(plain, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ExportError(f"{path.name}: tensor {name} is none that llama.cpp's {architecture} has")
        found[target] = (path, name)
    expected = list(_expected(config, architecture))
    if config.tie_word_embeddings:
        found.pop("output.weight", None)
    missing = next((target for target in expected if target not in found), None)
    surplus = next((name for target, (_, name) in found.items() if target not in expected), None)
    if missing:
        raise ModelError(f"{model_dir} lacks the tensor that becomes {missing}: the download may be incomplete")
    if surplus:
        raise ExportError(f"{model_dir}: tensor {surplus} does not belong to {config.model_type} as configured")
    return {target: found[target] for target in expected}


def _expected(config: Any, architecture: str) -> Iterator[str]:
    yield "token_embd.weight"
    for layer in range(config.num_hidden_layers):
        for part in (*_NORMS[architecture], *_MATRICES):
            yield f"blk.{layer}.{part}.weight"
        if architecture == "qwen2":
            yield from (f"blk.{layer}.{part}.bias" for part in ("attn_q", "attn_k", "attn_v"))
    yield "output_norm.weight"
    if not config.tie_word_embeddings:
        yield "output.weight"


def _source_tensors(model_dir: Path) -> Iterator[tuple[Path, str]]:
    from safetensors import SafetensorError, safe_open

    files = sorted(model_dir.glob("model*.safetensors"))
    if not files:
        raise ModelError(f"{model_dir} holds no model*.safetensors")
    for path in files:
        try:
            with safe_open(path, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - not a mapping
                    yield path, name
        except SafetensorError as error:
            raise ModelError(f"{path} is damaged ({error}): fetch it again") from None
