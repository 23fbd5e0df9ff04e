"""`pocketloop export`: a registered version as the files that phones load, with proof and price."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, narrated, say, table
from pocketloop.cli.review import split_version
from pocketloop.contracts.errors import ConfigError, ExportError, ModelError
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_base_config, load_device_classes
from pocketloop.contracts.names import GgufQuantization

_HELDOUT = 24
"""Conversations that a lowered program is compared on, token by token."""
_ANSWERED = 128
"""Held-out examples that it answers, one after another."""

if TYPE_CHECKING:
    from pocketloop.contracts.examples import Example
    from pocketloop.contracts.exports import ExportReport, Format, KeptScore
    from pocketloop.export.version import Maker, Source
    from pocketloop.models.generators import Generator
    from pocketloop.tasks.tasks import TaskSpec


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: pocketloop export functions@2 --formats gguf,pte --json")(export)


def export(
    adapter: Annotated[
        str, typer.Argument(help="ADAPTER, ADAPTER@VERSION, or the folder of a bundle.", autocompletion=adapter_names)
    ],
    formats: Annotated[
        str,
        typer.Option(help="gguf, pte, or both with a comma; by default gguf, and pte where the recipe asks for it."),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the files; by default in the project's state.")] = None,
    compare: Annotated[
        str, typer.Option(help="Quantizations to hold beside the base's own, with commas; by default the recipe's.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write a version's files for phones, run them here as a phone would, and project them on classes of phones.

    The exit status is 3 when a file differs from what was judged, a golden probe fails, or the budget is exceeded; the
    files and the page are written all the same.
    """
    from pocketloop.export.version import export_version

    asked = _formats(formats) if formats else None
    with narrated(), version_source(adapter) as (source, version):
        folder = out or Home().exports / f"{source.bundle.adapter}@{version}"
        folder.mkdir(parents=True, exist_ok=True)
        report = export_version(
            source,
            version,
            folder,
            asked or (["gguf", "pte"] if source.recipe.export.pte else ["gguf"]),
            load_device_classes(),
            _makers(source, _quantizations(compare) or source.recipe.export.gguf.compare),
            lambda file: _install(source, file),
        )
    if as_json:
        emit(report)
    else:
        _show(report)
        say(f"files {folder}, page {folder / 'export.html'}")
    if not report.passed:
        raise typer.Exit(3)


def _formats(given: str) -> "list[Format]":
    from pocketloop.contracts.exports import Format

    known: tuple[Format, ...] = get_args(Format)
    wanted = [name.strip() for name in given.split(",") if name.strip()]
    found = [name for name in known if name in wanted]
    unknown = [name for name in wanted if name not in known]
    if unknown or not found:
        raise ConfigError(f"--formats {given}: known are {', '.join(known)}")
    return found


def _quantizations(given: str) -> list[GgufQuantization]:
    known: tuple[GgufQuantization, ...] = get_args(GgufQuantization)
    wanted = [name.strip() for name in given.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in known]:
        raise ConfigError(f"--compare {', '.join(unknown)}: known are {', '.join(known)}")
    return [name for name in known if name in wanted]


def _makers(source: "Source", compare: list[GgufQuantization]) -> "dict[Format, Maker]":
    from pocketloop.export.version import make_gguf, make_pte

    work = Home().cache / "quantizations"
    heldout = cache(lambda: _heldout(source))

    def texts() -> list[str]:
        return _texts(source, *heldout())

    def score(program: "Generator") -> "KeptScore":
        return _kept(source, program, *heldout())

    return {
        "gguf": lambda source, out: make_gguf(source, out, compare, texts, work),
        "pte": lambda source, out: make_pte(source, out, texts(), score),
    }


def _heldout(source: "Source") -> "tuple[TaskSpec, list[Example]]":
    """The version's task, and examples that its adapter was not trained on."""
    from pocketloop.contracts.files import Folder
    from pocketloop.contracts.loading import load_config
    from pocketloop.contracts.recipe import Catalogue
    from pocketloop.tasks.tasks import TaskSpec
    from steps.examples import evaluation_sets

    release = Home().releases / source.bundle.dataset_digest / "splits"
    if not source.recipe.evaluation.sets and not release.is_dir():
        raise ExportError(
            f"parity needs held-out conversations: the recipe of {source.bundle.adapter} names no evaluation set, and "
            f"the dataset release {source.bundle.dataset_digest[:12]} is not here"
        )
    listed = source.folder / "catalogue.json"
    task = TaskSpec.of(source.recipe, load_config(listed, Catalogue) if listed.is_file() else None)
    dataset = Folder(path=release, digest=source.bundle.dataset_digest)
    return task, next(iter(evaluation_sets(dataset, source.recipe).values()))


def _texts(source: "Source", task: "TaskSpec", examples: "list[Example]") -> list[str]:
    """Held-out conversations as the base's chat template renders them."""
    from pocketloop.models.chat import load_tokenizer
    from steps.examples import rendered

    return rendered(load_tokenizer(source.base.tokenizer), task, examples[:_HELDOUT])


def _kept(source: "Source", program: "Generator", task: "TaskSpec", examples: "list[Example]") -> "KeptScore":
    """The task's main metric of an exported program, beside the adapter in transformers on the same examples."""
    from pocketloop.evaluation.suite import kept_score
    from pocketloop.models.bases import load_with_adapter
    from pocketloop.models.generators import TransformersGenerator

    trained = TransformersGenerator(*load_with_adapter(source.config, source.folder / "adapter", "float32"))
    longest, margin = source.recipe.evaluation.max_new_tokens, source.recipe.export.parity.max_score_loss
    return kept_score(program, trained, examples[:_ANSWERED], task, longest, margin)


@contextmanager
def version_source(adapter: str) -> "Iterator[tuple[Source, str]]":
    """The verified bundle that is meant, with its base, and the version's name."""
    from pocketloop.export.base import open_base
    from pocketloop.export.version import read_source
    from pocketloop.registry.mlflow_store import candidate, fetch_bundle

    def open_bundle(folder: Path) -> "Source":
        from pocketloop.contracts.reports import ReleaseBundle

        if not (folder / "bundle.json").is_file():
            raise ModelError(f"{folder} holds no bundle.json; give ADAPTER@VERSION, or the folder of a bundle")
        bundle = ReleaseBundle.model_validate_json((folder / "bundle.json").read_bytes())
        base = Home().bases / bundle.base_digest
        if not base.is_dir():
            raise ModelError(
                f"base {bundle.base} {bundle.base_digest[:12]} is not prepared here; "
                f"`pocketloop prepare-base {bundle.base}`"
            )
        return read_source(folder, load_base_config(bundle.base), open_base(base))

    if Path(adapter).is_dir():
        yield open_bundle(Path(adapter)), "local"
        return
    name, version = split_version(adapter)
    found = candidate(Home(), name, version)
    with fetch_bundle(Home(), found) as folder:
        yield open_bundle(folder), found.version


def _install(source: "Source", file: Path) -> int:
    """Golden probes that fail on `file` when it is installed as on a phone."""
    from pocketloop.contracts.exports import MERGED_FILE
    from pocketloop.device.companion import companion_of
    from pocketloop.device.runtime import Runtime
    from pocketloop.models.llama_cpp import LlamaCppGenerator
    from pocketloop.models.probes import failed_probes, load_probes

    base = source.base
    if file.name == MERGED_FILE:  # a model of its own, beside no base that it could be compared with
        with LlamaCppGenerator(file, base.tokenizer) as generator:
            # alone, as they were recorded: together with others, rounding differs
            return sum(failed_probes(generator, [probe]) for probe in load_probes(source.folder))
    context = source.recipe.export.context or source.config.context
    with Runtime(base.quantized, base.tokenizer, base_digest=base.manifest.digest, context=context) as runtime:
        return runtime.run_probes(file, companion_of(source.folder))


def _show(report: "ExportReport") -> None:
    say(f"[bold]{report.adapter}@{report.version}[/bold] on {report.base} {report.base_digest[:12]}")
    rows = []
    for file in report.files:
        worst = min((result.top1 for result in file.parity.results), default=None) if file.parity else None
        same = "not run" if not file.run else "–" if worst is None else f"{worst:.4f}"
        kept = f"{file.score.exported:.3f}, was {file.score.trained:.3f}" if file.score else "–"
        rows.append([file.path, file.quantization, f"{file.bytes / 1e6:.2f}", same, kept])
    table("", ["file", "quantization", ">MB", ">best token", ">score"], rows)
    for found in report.budget.measures:
        first = "–" if found.first_token_ms is None else f"{found.first_token_ms:.0f} ms"
        speed = "–" if found.tokens_per_second is None else f"{found.tokens_per_second:,.0f}"
        say(
            f"{found.format} here: {found.resident_bytes / 1e6:.0f} MB at {found.context:,} tokens "
            f"({found.private_bytes / 1e6:.0f} MB of it cannot be dropped), first token {first}, {speed} tokens/s"
        )
    rows = [
        [found.device, found.format, found.standing, f"{found.tokens_per_second:,.1f}", found.why]
        for found in report.budget.projections
    ]
    table("Projected, measured on no phone", ["class", "format", "standing", ">tokens/s", "why"], rows)
    if report.quantizations:
        from pocketloop.export.quantizations import COLUMNS, matrix_cells

        columns = [COLUMNS[0], *(f">{name}" for name in COLUMNS[1:])]
        table("Quantizations of the base", columns, matrix_cells(report.quantizations))
    failed = report.probes_failed
    said = "not run" if failed is None else f"{len(report.probes) - failed} of {len(report.probes)} hold"
    say(f"golden probes: {said}")
    for sentence in report.budget.exceeded:
        say(f"[red]exceeded[/red] {sentence}")
    for change in report.budget.would_fit:
        say(f"  would fit with --set {change.replace(' ', ' --set ')}")
    for file in report.files:
        if file.parity and not file.parity.passed:
            say(f"[red]differs[/red] {file.path} says other words than the adapter in transformers")
        if file.score and file.score.verdict != "pass":
            kept = f"{file.score.metric} may be {-file.score.low:.3f} lower than in transformers (n = {file.score.n})"
            say(f"[red]differs[/red] {file.path}: {kept}")
    said = "[green]PASS[/green]: the files behave as what was judged" if report.passed else "[red]FAIL[/red]: see above"
    say(said)
