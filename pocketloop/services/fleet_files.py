"""Adapter files for a simulated fleet: random ones that really change the base's answers, or somebody's own."""

import shutil
from pathlib import Path

import numpy as np

from pocketloop.contracts.delivery import Companion
from pocketloop.contracts.files import atomic_file, sha256_file
from pocketloop.export.base import PreparedBase, write_probes
from pocketloop.models.llama_runtime import BASE_DIGEST_KEY

_RANK = 4
_SIZE = 0.2
"""Standard deviation of the random factors: enough to change what the base says."""


def random_adapter(base: PreparedBase, out: Path, seed: int) -> Path:
    """Write a LoRA with random factors on every attention's output; the same bytes for the same seed."""
    from gguf import GGUFReader, GGUFWriter

    rng = np.random.default_rng(seed)
    shapes = {t.name: t.shape for t in GGUFReader(base.quantized).tensors if t.name.endswith("attn_output.weight")}
    with atomic_file(out) as temporary:
        writer = GGUFWriter(temporary, base.manifest.architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(_RANK))
        writer.add_string(BASE_DIGEST_KEY, base.manifest.digest)
        for name, (columns, rows) in sorted(shapes.items()):
            for factor, size in (("lora_a", (_RANK, columns)), ("lora_b", (rows, _RANK))):
                writer.add_tensor(f"{name}.{factor}", (_SIZE * rng.standard_normal(size)).astype(np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return out


def probed(base: PreparedBase, file: Path, adapter: str, folder: Path) -> tuple[Path, Companion]:
    """A copy of an adapter file in `folder`, and a companion whose probes were recorded with it on this base."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{sha256_file(file)}.gguf"
    shutil.copyfile(file, copy)
    probes = write_probes(copy.with_suffix(".probes"), base.quantized, base.tokenizer, copy)
    return copy, Companion(adapter=adapter, task="chat", probes=probes)
