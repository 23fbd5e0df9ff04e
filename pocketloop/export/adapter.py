"""A trained adapter as the file that phones fetch."""

from pathlib import Path
from typing import NamedTuple

from pocketloop.contracts.errors import ExportError
from pocketloop.contracts.files import sha256_file
from pocketloop.contracts.recipe import ExportConfig
from pocketloop.export.base import PreparedBase, write_probes
from pocketloop.export.gguf_lora import convert_lora

_MB = 1_000_000


class ExportedAdapter(NamedTuple):
    """The adapter file, its sha256, its size in bytes and its number of parameters."""

    path: Path
    digest: str
    size: int
    parameters: int


def export_adapter(adapter_dir: Path, base: PreparedBase, out: Path, export: ExportConfig) -> ExportedAdapter:
    """Convert the peft adapter in `adapter_dir` to `out`/adapter.gguf, bound to `base`.

    Beside it, `probes.json` holds how base and adapter continue fixed prompts: a phone can check that the adapter it
    loaded has the effect it should have.

    Raises:
        ModelError: `adapter_dir` holds no adapter.
        ExportError: the adapter cannot be expressed in GGUF, or exceeds the recipe's budget (no file is left then).
    """
    path = out / "adapter.gguf"
    parameters = convert_lora(adapter_dir, base.tokenizer, base.manifest.digest, path, export.gguf.adapter)
    size = path.stat().st_size
    if size > export.budget.adapter_mb * _MB:
        path.unlink()
        raise ExportError(
            f"the adapter takes {size / _MB:.2f} MB, the recipe allows export.budget.adapter_mb = "
            f"{export.budget.adapter_mb:g}; lower train.lora.r or raise the budget"
        )
    write_probes(out / "probes.json", base.quantized, base.tokenizer, path)
    return ExportedAdapter(path, sha256_file(path), size, parameters)
