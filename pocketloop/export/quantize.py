"""Quantization by llama.cpp's own quantizer, which replaces the asked type silently where rows do not fit it."""

import ctypes
import re
from pathlib import Path
from typing import Literal, NamedTuple

from pocketloop.contracts.errors import ExportError
from pocketloop.contracts.files import atomic_file
from pocketloop.models.llama_runtime import available_cores, captured_log, last_words, library

Quantization = Literal["F16", "Q8_0", "Q4_K_M"]

_FALLBACKS = re.compile(r"(\d+) of \d+ tensor\(s\) required fallback quantization")


class QuantizeResult(NamedTuple):
    """Bytes of the file, bits per weight of its tensors, and how many got another type than the asked one."""

    size: int
    bits_per_weight: float
    fallback_tensors: int


def quantize(src: Path, out: Path, quantization: Quantization = "Q4_K_M", threads: int | None = None) -> QuantizeResult:
    """Quantize the GGUF model `src` into `out`, which appears whole or not at all; equal inputs give equal bytes.

    Rows that are not divisible by a type's block (256 values for the K types) fall back to a larger type.

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
        with captured_log() as log:
            status = lib.llama_model_quantize(str(src).encode(), str(temporary).encode(), ctypes.byref(params))
        if status != 0:
            raise ExportError(f"llama.cpp could not quantize {src} to {quantization}: {last_words()}")
        bits = _bits_per_weight(src, temporary)
    match = _FALLBACKS.search("".join(log))
    return QuantizeResult(out.stat().st_size, bits, int(match[1]) if match else 0)


def _bits_per_weight(src: Path, written: Path) -> float:
    """Bits per weight over all tensors of `written`, which must be those of `src`."""
    from gguf import GGUFReader

    try:
        before = {tensor.name: tensor.n_elements for tensor in GGUFReader(src).tensors}
        after = {tensor.name: (tensor.n_elements, tensor.n_bytes) for tensor in GGUFReader(written).tensors}
    except (ValueError, IndexError) as error:
        raise ExportError(f"quantizing {src} left a partial file ({error}): is the disk full?") from None
    if before != {name: elements for name, (elements, _) in after.items()}:
        raise ExportError(f"quantizing {src} left a file without all of its tensors")
    return 8 * sum(size for _, size in after.values()) / sum(before.values())
