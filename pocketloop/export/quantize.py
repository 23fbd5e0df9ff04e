"""Quantization by llama.cpp's own quantizer, which replaces the asked type silently where rows do not fit it."""

import ctypes
from pathlib import Path
from typing import Literal, NamedTuple

from pocketloop.contracts.errors import ExportError
from pocketloop.contracts.files import atomic_file
from pocketloop.models.llama_runtime import available_cores, last_words, library

Quantization = Literal["F16", "Q8_0", "Q4_K_M"]

# The types that a mixture is made of; whatever else a file holds is there because a tensor's rows did not fit.
_MIXTURES = {
    "F16": {"F32", "F16"},
    "Q8_0": {"F32", "Q8_0"},
    "Q4_K_M": {"F32", "Q4_K", "Q5_K", "Q6_K"},
}


class QuantizeResult(NamedTuple):
    """Bytes of the file, bits per weight of its tensors, and how many got another type than the asked one."""

    size: int
    bits_per_weight: float
    fallback_tensors: int


def quantize(src: Path, out: Path, quantization: Quantization = "Q4_K_M", threads: int | None = None) -> QuantizeResult:
    """Quantize the GGUF model `src` into `out`, which appears whole or not at all; equal inputs give equal bytes.

    Rows that are not divisible by a type's block (256 values for the K types) get a larger type. llama.cpp's log
    counts most of those but not the embedding, so they are counted in the file.

    Raises:
        ExportError: llama.cpp refused, or wrote a file that does not hold all tensors.
    """
    if not src.is_file():
        raise ExportError(f"{src}: no such file to quantize")
    lib = library()
    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{quantization}")
    params.nthread = threads or available_cores()
    with atomic_file(out) as temporary:
        status = lib.llama_model_quantize(str(src).encode(), str(temporary).encode(), ctypes.byref(params))
        if status != 0:
            raise ExportError(f"llama.cpp could not quantize {src} to {quantization}: {last_words()}")
        bits, fallbacks = _inspect(src, temporary, _MIXTURES[quantization])
    return QuantizeResult(out.stat().st_size, bits, fallbacks)


def _inspect(src: Path, written: Path, mixture: set[str]) -> tuple[float, int]:
    """(bits per weight, tensors outside the mixture) of `written`, whose tensors must be those of `src`."""
    from gguf import GGUFReader

    try:
        before = {tensor.name: tensor.n_elements for tensor in GGUFReader(src).tensors}
        after = GGUFReader(written).tensors
    except (ValueError, IndexError) as error:
        raise ExportError(f"quantizing {src} left a partial file ({error}): is the disk full?") from None
    if before != {tensor.name: tensor.n_elements for tensor in after}:
        raise ExportError(f"quantizing {src} left a file without all of its tensors")
    bits = 8 * sum(int(tensor.n_bytes) for tensor in after) / sum(int(count) for count in before.values())
    return bits, sum(tensor.tensor_type.name not in mixture for tensor in after)
