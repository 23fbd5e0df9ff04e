"""The llama.cpp library, quiet: its log is kept for error messages instead of going to stderr."""

import os
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import ModelError

BASE_DIGEST_KEY = "pocketloop.base_digest"
"""Metadata key of an adapter file: sha256 of the quantized base that it belongs to."""

_WARNING, _ERROR = 2, 3

_log: deque[str] = deque(maxlen=3)


@cache
def library() -> Any:
    """The `llama_cpp` bindings with the log captured and the backend initialised, once per process."""
    import llama_cpp

    @llama_cpp.llama_log_callback
    def keep(level: int, text: bytes, _user_data: Any) -> None:
        if level in (_WARNING, _ERROR):
            _log.append(text.decode("utf-8", "replace").strip())

    llama_cpp.llama_log_set(keep, None)
    llama_cpp.pocketloop_log_callback = keep  # the C side keeps only a pointer: somebody must own the object
    llama_cpp.llama_backend_init()
    return llama_cpp


def last_words() -> str:
    """llama.cpp's latest warnings and errors, for an error message; what is told is forgotten."""
    words = " / ".join(line for line in _log if line) or "it gave no reason"
    _log.clear()
    return words


def default_threads() -> int:
    """OMP_NUM_THREADS, or the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return available_cores()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_model(path: Path) -> Any:
    """Load a GGUF model; the caller frees it with `llama_model_free`.

    Raises:
        ModelError: the file is absent, damaged or of an unknown kind.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such GGUF file; `prepare_base` writes it")
    lib = library()
    _log.clear()
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    # A failed call gives a falsy NULL pointer, not None, and using it crashes the process.
    if not model:
        raise ModelError(f"{path} cannot be loaded by llama.cpp: {last_words()}")
    return model


def load_adapter(model: Any, path: Path) -> Any:
    """Load a GGUF LoRA for a loaded model; freed by `llama_adapter_lora_free`, or with the model.

    Raises:
        ModelError: the file is absent, damaged, or does not fit the model.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such adapter file")
    lib = library()
    _log.clear()
    adapter = lib.llama_adapter_lora_init(model, str(path).encode())
    if not adapter:
        raise ModelError(f"{path} cannot be loaded as an adapter of this base: {last_words()}")
    return adapter


def adapter_metadata(adapter: Any, key: str) -> str | None:
    """A metadata value of a loaded adapter, if it has one."""
    import ctypes

    buffer = ctypes.create_string_buffer(512)
    length = library().llama_adapter_meta_val_str(adapter, key.encode(), buffer, len(buffer))
    return buffer.value.decode() if length >= 0 else None
