"""A registered version as the files that phones load, with what they cost: what `pocketloop export` writes.

    OUT/
      export.json           every file with its digest, size and parity; the budget; what the golden probes tell
      export.html           the same as a page
      gguf/base.gguf        the shared base, as it was prepared
      gguf/adapter.gguf     the adapter, as it was judged; or
      gguf/merged.gguf      base and adapter in one, where llama.cpp takes no such adapter (then without base.gguf)
      gguf/probes.json      its golden probes
      pte/base/             shared weights (`base.ptd`), tokenizer, and the base's own program
      pte/adapter/          the adapter's program beside them; or
      pte/merged/           one program with everything in it
      pte/probes.json       its own golden probes

Files that are there and have the right digest are kept, so that an export that was killed goes on where it ended.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.exports import (
    MERGED_FILE,
    BudgetMeasure,
    DeviceClasses,
    ExportedFile,
    ExportReport,
    Format,
    KeptScore,
    ProbeNote,
    Role,
    why_merged,
)
from pocketloop.contracts.files import atomic_file, sha256_file, write_json
from pocketloop.contracts.loading import load_lowering
from pocketloop.contracts.lowering import Lowering
from pocketloop.contracts.recipe import BaseConfig, GgufQuantization, PteConfig, Recipe
from pocketloop.contracts.reports import ParityReport, QuantizationMatrix, ReleaseBundle
from pocketloop.export.base import PreparedBase
from pocketloop.export.budgets import Choices, judge_budget, measure_export
from pocketloop.export.gguf_files import exported_file, read_record
from pocketloop.export.gguf_lora import obstacles
from pocketloop.export.measure import read_gguf
from pocketloop.export.measure_pte import measure_pte
from pocketloop.export.parity import pte_parity
from pocketloop.export.probes import write_program_probes
from pocketloop.export.pte import LoweredModel, lower_adapter, lower_base, lower_merged
from pocketloop.export.quantizations import compare_quantizations
from pocketloop.export.report import write_export_page
from pocketloop.models.executorch import ExecuTorchGenerator
from pocketloop.models.generators import Generator, common_length
from pocketloop.models.probes import load_probes
from pocketloop.models.pte_env import PteEnvironment

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """A version's verified bundle, its recipe, and its base: as configured, and as it was prepared."""

    folder: Path
    bundle: ReleaseBundle
    recipe: Recipe
    config: BaseConfig
    base: PreparedBase


class Made(NamedTuple):
    """A format's files, what running them costs, and what the recipe may choose otherwise, if that is known."""

    files: list[ExportedFile]
    measures: list[BudgetMeasure]
    choices: Choices | None = None
    quantizations: QuantizationMatrix | None = None


Maker = Callable[[Source, Path], Made]
"""Writes one format's files into a folder; `path` of each file is its name there."""


def read_source(folder: Path, config: BaseConfig, base: PreparedBase) -> Source:
    """Read a bundle.

    Raises:
        ModelError: the bundle belongs to another base than `base`.
    """
    bundle = ReleaseBundle.model_validate_json((folder / "bundle.json").read_bytes())
    recipe = Recipe.model_validate_json((folder / "recipe.json").read_bytes())
    if bundle.base_digest != base.manifest.digest:
        raise ModelError(
            f"{bundle.adapter} belongs to the base with digest {bundle.base_digest[:16]}, not to "
            f"{base.manifest.base} {base.manifest.digest[:16]}"
        )
    return Source(folder, bundle, recipe, config, base)


def export_version(
    source: Source,
    version: str,
    out: Path,
    formats: Sequence[Format],
    classes: DeviceClasses,
    makers: dict[Format, Maker],
    install: Callable[[Path], int] | None = None,
) -> ExportReport:
    """Write every format's files below `out`, then `export.json` and `export.html`.

    `install` runs the golden probes on the GGUF file as a phone does, and returns how many fail.

    Raises:
        ConfigError: nobody makes one of the formats here.
        ModelError, ExportError: a file cannot be made or run.
    """
    unknown = [name for name in formats if name not in makers]
    if unknown or not formats:
        raise ConfigError(f"--formats {','.join(formats)}: known are {', '.join(makers)}")
    files: list[ExportedFile] = []
    measures: list[BudgetMeasure] = []
    choices, compared = None, None
    for name in formats:
        made = makers[name](source, out / name)
        files += [file.model_copy(update={"path": f"{name}/{file.path}"}) for file in made.files]
        measures += made.measures
        choices, compared = choices or made.choices, compared or made.quantizations
    report = ExportReport(
        adapter=source.bundle.adapter,
        version=version,
        base=source.base.manifest.base,
        base_digest=source.bundle.base_digest,
        bundle_digest=source.bundle.digest,
        files=files,
        budget=judge_budget(measures, source.recipe.export.budget, classes, choices),
        probes=_notes(source.folder),
        probes_failed=install(exported_file(out / "gguf")) if install and "gguf" in formats else None,
        quantizations=compared,
    )
    write_json(out / "export.json", report)
    write_export_page(out / "export.html", report, classes)
    return report


def make_gguf(
    source: Source,
    out: Path,
    compare: Sequence[GgufQuantization] = (),
    texts: Callable[[], Sequence[str]] = list,
    work: Path | None = None,
) -> Made:
    """The base as it was prepared and the adapter as it was judged, with the parity that was proven then.

    `compare` are quantizations to hold beside the base's own on `texts`; their files stay in `work`.
    """
    base, manifest = source.base, source.base.manifest
    judged = exported_file(source.folder)
    digest = source.bundle.files[judged.name]
    _place(judged, out / judged.name, digest)
    _place(source.folder / "probes.json", out / "probes.json", sha256_file(source.folder / "probes.json"))
    proven = source.folder / "parity.json"
    merged, record = judged.name == MERGED_FILE, read_record(source.folder)
    notes = [why_merged(record.merged)] if record and record.merged else []
    if record and record.fallback_tensors:
        notes.append(_fell_back(record.fallback_tensors))
    exported = ExportedFile(
        role="merged" if merged else "adapter",
        format="gguf",
        quantization=manifest.quantization if merged else source.recipe.export.gguf.adapter,
        path=judged.name,
        bytes=judged.stat().st_size,
        digest=digest,
        bits_per_weight=_bits_per_weight(judged),
        parity=ParityReport.model_validate_json(proven.read_bytes()) if proven.is_file() else None,
        note="; ".join(notes),
    )
    files = [exported]
    if not merged:
        _place(base.quantized, out / "base.gguf", manifest.digest)
        note = _fell_back(manifest.fallback_tensors) if manifest.fallback_tensors else ""
        shared = ExportedFile(
            role="base",
            format="gguf",
            quantization=manifest.quantization,
            path="base.gguf",
            bytes=base.quantized.stat().st_size,
            digest=manifest.digest,
            bits_per_weight=manifest.bits_per_weight,
            note=note,
        )
        files = [shared, exported]
    _log.info("running %s as a phone does", judged.name)
    measure, choices = measure_export(source.recipe, source.config, base, out / judged.name)
    if not compare or work is None:
        return Made(files, [measure], choices)
    wanted = [name for name in get_args(GgufQuantization) if name in {*compare, manifest.quantization}]
    _log.info("comparing %s with transformers", ", ".join(wanted))
    matrix = compare_quantizations(
        source.config,
        base,
        wanted,
        texts(),
        source.recipe.export.parity,
        work / manifest.digest,
        adapter_dir=None if merged else source.folder / "adapter",
        adapter=None if merged else out / judged.name,
    )
    sizes = choices.sizes | {row.quantization: row.size for row in matrix.rows}
    return Made(files, [measure], choices._replace(sizes=sizes), matrix)


def make_pte(
    source: Source,
    out: Path,
    texts: Sequence[str],
    score: Callable[[Generator], KeptScore] | None = None,
    *,
    cache: Path | None = None,
    environment: PteEnvironment | None = None,
) -> Made:
    """A program for ExecuTorch, lowered as the recipe says (or as by default), compared with transformers on `texts`.

    What was lowered before is found again in `cache`. The recipe's context, if it has one, replaces the lowering's own.
    `score` asks the program what the task asks. What cannot lie beside shared weights is merged, and says so.

    Raises:
        ModelError: the base's weights are not here, or the environment cannot be made.
        ExportError: the model cannot be lowered in this way.
    """
    pte = source.recipe.export.pte or PteConfig()
    wanted = load_lowering(pte.lowering)
    if source.recipe.export.context:
        wanted = Lowering.model_validate(wanted.model_dump() | {"context": source.recipe.export.context})
    there: dict[str, Any] = {"cache": cache, "environment": environment}
    adapter = source.folder / "adapter"
    data = None
    files = []
    reasons = obstacles(adapter, source.base.tokenizer) if pte.form == "shared" else []
    if pte.form == "shared" and not reasons:
        base = lower_base(source.config, wanted, **there)
        program = lower_adapter(source.config, adapter, base, wanted, **there).copy_to(out / "adapter")
        base = base.copy_to(out / "base")
        data = base.data
        files.append(_lowered_file("base", base, "base/base.ptd", "base.ptd"))
        files.append(_lowered_file("adapter", program, "adapter/model.pte", "model.pte"))
    else:
        program = lower_merged(source.config, adapter, wanted, **there).copy_to(out / "merged")
        note = f"merged: no factors of linear layers hold {', '.join(reasons)}" if reasons else ""
        files.append(_lowered_file("merged", program, "merged/model.pte", "model.pte", note))
    if not program.manifest.ran:
        return Made(files, [])
    bounds = source.recipe.export.parity
    _log.info("comparing %s with transformers on %d conversations", files[-1].path, len(texts))
    proven = pte_parity(source.config, adapter, program.folder, texts, bounds, data=data, environment=environment)
    files[-1] = files[-1].model_copy(update={"parity": proven})
    prompt = max((probe.prompt_ids for probe in load_probes(source.folder)), key=len, default=[])
    sizes = read_gguf(source.base.quantized).sizes
    alone = out / "base" if data else None
    with ExecuTorchGenerator(program.folder, data, environment=environment) as runtime:
        write_program_probes(out / "probes.json", runtime, program.folder, alone, load_probes(source.folder))
        if score:
            _log.info("asking %s the task's held-out examples", files[-1].path)
            files[-1] = files[-1].model_copy(update={"score": score(runtime)})
    return Made(files, [measure_pte(program.folder, sizes, data=data, prompt=prompt, environment=environment)])


def _lowered_file(role: Role, lowered: LoweredModel, path: str, name: str, why: str = "") -> ExportedFile:
    manifest = lowered.manifest
    fell_back = f"{manifest.fallback_linears} layers fell back to 8 bits a row" if manifest.fallback_linears else ""
    alien = "" if manifest.ran else f"lowered for {manifest.backend}, which runs on such a device alone"
    return ExportedFile(
        role=role,
        format="pte",
        quantization=f"{manifest.backend} {manifest.quantization}",
        path=path,
        bytes=manifest.sizes[name],
        digest=manifest.files[name],
        run=manifest.ran,
        note="; ".join(filter(None, [why, fell_back, alien])),
    )


def _fell_back(tensors: int) -> str:
    return f"{tensors} tensors fell back to a larger type"


def _place(source: Path, target: Path, digest: str) -> None:
    """Copy a file to where it belongs unless it is there."""
    if target.is_file() and sha256_file(target) == digest:
        return
    with atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)
        if sha256_file(temporary) != digest:
            raise ModelError(f"{source} was changed since it was registered: its sha256 is not {digest[:16]}")


def _bits_per_weight(path: Path) -> float:
    from gguf import GGUFReader

    tensors = GGUFReader(path).tensors
    return 8 * sum(int(tensor.n_bytes) for tensor in tensors) / sum(int(tensor.n_elements) for tensor in tensors)


def _notes(bundle: Path) -> list[ProbeNote]:
    notes = []
    for probe in load_probes(bundle):
        alike = None if probe.base_ids is None else common_length(probe.answer_ids, probe.base_ids)
        parts = alike is not None and alike < max(len(probe.answer_ids), len(probe.base_ids or []))
        notes.append(
            ProbeNote(
                prompt=probe.prompt,
                prompt_tokens=len(probe.prompt_ids),
                parts_at=alike + 1 if parts and alike is not None else None,
                sure=probe.sure,
                gain=probe.gain,
            )
        )
    return notes
