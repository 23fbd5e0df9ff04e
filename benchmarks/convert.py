"""Speed of the GGUF converter and of the quantizer, against a plain copy of the weights.

    python benchmarks/convert.py [--hidden 1024] [--layers 12]

The model is random (Qwen 3's shape); the file system's cache is warm for all three.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12)
    arguments = parser.parse_args()
    from pocketloop.export.gguf_model import convert_model
    from pocketloop.export.quantize import quantize
    from tests.tinymodels import save_tiny_model

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        model = save_tiny_model(root / "model", "qwen3", hidden=arguments.hidden, layers=arguments.layers)
        weights = model / "model.safetensors"
        size = weights.stat().st_size
        seconds = {
            "copy": timed(lambda: shutil.copyfile(weights, root / "copy")),
            "convert to F16": timed(lambda: convert_model(model, root / "f16.gguf")),
            "quantize to Q4_K_M": timed(lambda: quantize(root / "f16.gguf", root / "q4.gguf", threads=1)),
        }
        print(f"{size / 1e6:.0f} MB of bfloat16 weights")
        for name, taken in seconds.items():
            print(f"{name:20s} {taken:6.2f} s {size / taken / 1e6:8.0f} MB/s   {taken / seconds['copy']:6.1f} x a copy")


def timed(work: Callable[[], object]) -> float:
    """Best of three, in wall seconds."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    main()
