"""From a base and an adapter to a `.pte` for ExecuTorch: a whole model, or a small program beside shared weights."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from pocketloop.contracts.errors import ExportError, ModelError
from pocketloop.contracts.files import (
    are_whole,
    atomic_dir,
    canonical_json,
    sha256_file,
    sha256_text,
    write_json,
)
from pocketloop.contracts.home import Home
from pocketloop.contracts.lowering import Lowering, PteForm, PteManifest
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.export.base import copy_tokenizer, tokenizer_files, weights_digest
from pocketloop.export.merge import merge
from pocketloop.export.pte_factors import write_factors
from pocketloop.models.bases import base_folder
from pocketloop.models.executorch import DATA, MANIFEST, PROGRAM, TOKENIZER, read_manifest
from pocketloop.models.pte_env import PteEnvironment, pte_environment, run_there

_log = logging.getLogger(__name__)
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_ROPE = {"default", "linear", "llama3"}
"""Rotations whose frequencies do not depend on the length: a program has them as constants."""


class LoweredModel(NamedTuple):
    """A lowered model's folder and manifest."""

    folder: Path
    manifest: PteManifest

    @property
    def program(self) -> Path:
        """The `.pte` file."""
        return self.folder / PROGRAM

    @property
    def data(self) -> Path:
        """The shared weights, in the folder of a base that was lowered alone."""
        return self.folder / DATA

    def copy_to(self, out: Path) -> "LoweredModel":
        """Put the files into the folder `out`, which appears whole or not at all."""
        with atomic_dir(out) as folder:
            for name in [*self.manifest.files, MANIFEST]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / name, folder / name)
        return LoweredModel(out, self.manifest)


def lower_merged(
    config: BaseConfig,
    adapter_dir: Path | None,
    lowering: Lowering,
    *,
    cache: Path | None = None,
    environment: PteEnvironment | None = None,
) -> LoweredModel:
    """A whole model with the adapter in its weights (or the base alone), lowered once and kept under `cache`.

    What was finished is found again by all that determines it; what was interrupted is begun anew.

    Raises:
        ModelError: base or adapter is absent.
        ExportError: the model cannot be lowered; the tool's last words are in the message and its log is kept.
    """
    return _lowered(config, adapter_dir, lowering, "merged", None, cache, environment)


def lower_base(
    config: BaseConfig, lowering: Lowering, *, cache: Path | None = None, environment: PteEnvironment | None = None
) -> LoweredModel:
    """The base's weights as `base.ptd`, for every adapter's program to share, and the base's own program."""
    return _lowered(config, None, lowering, "shared", None, cache, environment)


def lower_adapter(
    config: BaseConfig,
    adapter_dir: Path,
    base: LoweredModel,
    lowering: Lowering,
    *,
    cache: Path | None = None,
    environment: PteEnvironment | None = None,
) -> LoweredModel:
    """An adapter's program beside the shared weights of `base`: they are made again, compared, and not kept twice.

    Raises:
        ModelError: base or adapter is absent.
        ExportError: the adapter is more than low-rank factors (then lower it merged), the model cannot be lowered, or
            `base` is another's: it was lowered from other weights or in another way.
    """
    return _lowered(config, adapter_dir, lowering, "shared", base, cache, environment)


def open_lowered(folder: Path) -> LoweredModel:
    """Read a lowered model's manifest."""
    return LoweredModel(folder, read_manifest(folder))


def is_whole(folder: Path) -> bool:
    """Whether every file of a lowered model is there and has the digest that the manifest gives."""
    return (folder / MANIFEST).is_file() and are_whole(folder, read_manifest(folder).files)


def _lowered(
    config: BaseConfig,
    adapter_dir: Path | None,
    lowering: Lowering,
    form: PteForm,
    base: LoweredModel | None,
    cache: Path | None,
    environment: PteEnvironment | None,
) -> LoweredModel:
    from filelock import FileLock

    source = base_folder(config)
    _refuse(config, source, lowering, form)
    weights = weights_digest(source)
    if config.digest and config.digest != weights:
        raise ModelError(f"base {config.base}: the weights in {source} have digest {weights}, not {config.digest}")
    environment = environment or pte_environment()
    adapter = _adapter_digest(adapter_dir) if adapter_dir else None
    inputs = _inputs(config, source, weights, adapter, lowering, form, environment)
    folder = (cache or Home().cache) / "pte" / inputs[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not is_whole(folder):
            work = folder.with_name(f".{folder.name}.work")
            shutil.rmtree(work, ignore_errors=True)  # what a killed run left
            what = f"an adapter on {config.base}" if adapter_dir else config.base
            _log.info("lowering %s (%s) for %s: minutes", what, form, lowering.backend)
            facts = _run(config, source, adapter_dir, lowering, form, work, environment)
            _keep(config, source, work, folder, base, facts | {"inputs": inputs, "weights_digest": weights})
            shutil.rmtree(work, ignore_errors=True)
    found = open_lowered(folder)
    if base is not None and found.manifest.data_digest != base.manifest.data_digest:
        raise ExportError(
            f"the shared weights of {base.folder} have digest {base.manifest.data_digest}, lowering with an adapter "
            f"gives {found.manifest.data_digest}: the base was lowered from other weights or in another way; lower it "
            "again"
        )
    return found


def _run(
    config: BaseConfig,
    source: Path,
    adapter_dir: Path | None,
    lowering: Lowering,
    form: PteForm,
    work: Path,
    environment: PteEnvironment,
) -> dict[str, object]:
    """Lower into `work`/out; what is known of the result."""
    out = work / "out"
    out.mkdir(parents=True)
    merged = form == "merged" and adapter_dir is not None
    factors = work / "factors.safetensors" if adapter_dir and not merged else None
    if adapter_dir and factors:
        write_factors(config, adapter_dir, factors)
    if adapter_dir and merged:
        merge(config, adapter_dir, work / "merged")
    job = {
        "model": str(work / "merged" if merged else source),
        "factors": str(factors) if factors else None,
        "shared": form == "shared",
        "out": str(out),
        **lowering.model_dump(mode="json", exclude={"title"}),
    }
    try:
        run_there(environment, "lower.py", job, work)
    except ModelError as error:
        raise ExportError(f"base {config.base} cannot be lowered for {lowering.backend}: {error}") from None
    facts: dict[str, Any] = json.loads((out / "lowered.json").read_text(encoding="utf-8"))
    return facts | {
        "base": config.base,
        "form": form,
        "backend": lowering.backend,
        "quantization": lowering.quantization,
        "context": lowering.context,
        "prefill": _longest_call(lowering, facts["window"]),
        "adapter_digest": _adapter_digest(adapter_dir) if adapter_dir else None,
        "ran": lowering.runs_here,
    }


def _longest_call(lowering: Lowering, window: int | None) -> int:
    """Tokens that a call takes: one where the backend wants fixed shapes (as `lower.py` has it)."""
    if lowering.backend != "xnnpack":
        return 1
    return min(lowering.prefill, lowering.context - 1, (window or lowering.context) - 1)


def _keep(
    config: BaseConfig, source: Path, work: Path, folder: Path, base: LoweredModel | None, facts: dict[str, object]
) -> None:
    """Move what was lowered to its place; an adapter's program leaves the shared weights where they are."""
    out = work / "out"
    data = sha256_file(out / DATA) if (out / DATA).is_file() else None
    with atomic_dir(folder) as kept:
        for name in (PROGRAM, *((DATA,) if data and base is None else ())):
            (out / name).rename(kept / name)
        if base is None:
            copy_tokenizer(config, source, kept / TOKENIZER)
        files = sorted(path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file())
        manifest = PteManifest.model_validate(
            facts
            | {
                "data_digest": data,
                "files": {name: sha256_file(kept / name) for name in files},
                "sizes": {name: (kept / name).stat().st_size for name in files},
            }
        )
        write_json(kept / MANIFEST, manifest)
        (work / "lower.log").rename(kept / "lower.log")


def _inputs(
    config: BaseConfig,
    source: Path,
    weights: str,
    adapter: str | None,
    lowering: Lowering,
    form: PteForm,
    environment: PteEnvironment,
) -> str:
    """Digest of all that determines a lowered model's files."""
    from pocketloop.models import pte_env

    script = Path(pte_env.__file__).with_name("lower.py")
    template = sha256_file(Path(config.chat_template)) if config.chat_template else None
    return sha256_text(
        canonical_json(
            {
                "adapter": adapter,
                "base": config.base,
                "environment": environment.digest,
                "form": form,
                "lowering": lowering.model_dump(mode="json", exclude={"title"}),
                "script": sha256_file(script),
                "template": template,
                "tokenizer": {path.name: sha256_file(path) for path in tokenizer_files(source)},
                "weights": weights,
            }
        )
    )


def _adapter_digest(folder: Path) -> str:
    """Digest of a peft adapter's configuration and weights.

    Raises:
        ModelError: a file is absent.
    """
    missing = next((name for name in _ADAPTER_FILES if not (folder / name).is_file()), None)
    if missing:
        raise ModelError(f"{folder} holds no {missing}")
    settings = json.loads((folder / _ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    told = {key: value for key, value in settings.items() if not key.startswith("base_model_name")}  # a path, perhaps
    return sha256_text(f"{canonical_json(told)} {sha256_file(folder / _ADAPTER_FILES[1])}")


def _refuse(config: BaseConfig, source: Path, lowering: Lowering, form: PteForm) -> None:
    """Refuse what could only fail later, or not at all and be wrong."""
    if form == "shared" and lowering.backend != "xnnpack":
        raise ExportError(f"{lowering.backend} keeps weights in the program; export it as `form: merged`")
    if lowering.backend == "qnn" and not os.environ.get("QNN_SDK_ROOT"):
        raise ExportError("lowering for QNN needs Qualcomm's SDK: set QNN_SDK_ROOT to its folder")
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    limit = settings.get("max_position_embeddings")
    if limit and lowering.context > limit:
        raise ExportError(f"base {config.base} knows {limit} positions, the lowering asks for {lowering.context}")
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    layers = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    kinds = {str(part.get("rope_type") or part.get("type") or "default") for part in layers}
    if kinds - _ROPE:
        raise ExportError(
            f"base {config.base}: rope type {', '.join(sorted(kinds - _ROPE))} changes with the length and cannot be "
            f"lowered (known: {', '.join(sorted(_ROPE))})"
        )
