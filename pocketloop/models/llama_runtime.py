"""The llama.cpp library, quiet: its log is kept for error messages instead of going to stderr."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import ModelError

BASE_DIGEST_KEY = "pocketloop.base_digest"
"""Metadata key of an adapter file: sha256 of the quantized base that it belongs to."""

_KEPT_LINES = 400
_INFO, _CONTINUED = 1, 5
_log: deque[str] = deque(maxlen=_KEPT_LINES)
_listeners: list[list[str]] = []


@cache
def library() -> Any:
    """The `llama_cpp` bindings with the log captured and the backend initialised, once per process."""
    import llama_cpp

    @llama_cpp.llama_log_callback
    def keep(level: int, text: bytes, _user_data: Any) -> None:
        line = text.decode("utf-8", "replace")
        if level != _INFO:
            if level == _CONTINUED and _log:
                _log[-1] += line
            else:
                _log.append(line)
        for lines in _listeners:
            lines.append(line)

    llama_cpp.llama_log_set(keep, None)
    llama_cpp.pocketloop_log_callback = keep  # the C side keeps only a pointer: somebody must own the object
    llama_cpp.llama_backend_init()
    return llama_cpp


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect everything that llama.cpp logs inside the block, its information lines included."""
    lines: list[str] = []
    _listeners.append(lines)
    try:
        yield lines
    finally:
        _listeners.remove(lines)


def last_words(lines: int = 3) -> str:
    """The end of llama.cpp's warnings and errors, for an error message."""
    return " / ".join(line.strip() for line in list(_log)[-lines:] if line.strip()) or "it gave no reason"


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
