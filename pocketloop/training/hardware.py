"""How this machine trains: threads, precision, attention, and libraries that keep quiet."""

import logging
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketloop.models.llama_runtime import available_cores

_EAGER_LENGTH = 1024
_WIDE = 512


def use_cores(hidden: int) -> None:
    """Let torch use every core this process may run on, unless OMP_NUM_THREADS says otherwise.

    One core for a narrow model: its matrices are done before a second thread has woken up (hidden 256: 4,600 tokens/s
    on one thread, 2,900 on two).
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if hidden < _WIDE else available_cores())


def process_peak() -> int:
    """The most memory (bytes) that this process has held.

    Linux's own high-water mark where there is one: `ru_maxrss` of a process starts at what its parent held.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def computes_in_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 matrices in hardware: several times faster than float32."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_attention(model: Any, longest: int) -> str:
    """Set how attention is computed, for sequences of at most `longest` tokens; returns its name.

    On a GPU flash attention where it is installed and the model computes in 16 bits, else torch's fused one. On a CPU
    that is slower backwards than plain matrix products until sequences get long.
    """
    import torch
    from transformers.utils import is_flash_attn_2_available

    name = "sdpa"
    if torch.cuda.is_available():
        if is_flash_attn_2_available() and model.dtype == torch.bfloat16:
            name = "flash_attention_2"
    elif longest <= _EAGER_LENGTH:
        name = "eager"
    model.set_attn_implementation(name)
    return name


@contextmanager
def without_input_casts(model: Any, active: bool) -> Iterator[None]:
    """Under autocast every product is bfloat16: peft's casts of its inputs to the adapter's float32 only cost time."""
    from peft.helpers import disable_input_dtype_casting

    with disable_input_dtype_casting(model, active=active):
        yield


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries' bars and notices off the terminal while training; what we say is in `on_progress`."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it has something to say when it is imported
    import datasets
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # names that trl still gives to transformers
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars[0]:
            transformers_logging.enable_progress_bar()
        if bars[1]:
            datasets.enable_progress_bars()
