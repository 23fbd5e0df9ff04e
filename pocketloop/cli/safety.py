"""`pocketloop safety`: the red-team fixtures, and scanners that are asked for by hand."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, narrated, say, table
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Red-team fixtures and scanners.", no_args_is_help=True, rich_markup_mode=None)
    group.command(epilog="Example: pocketloop safety fixtures --json")(fixtures)
    group.command(epilog="Example: pocketloop safety garak functions@2")(garak)
    app.add_typer(group, name="safety")


def fixtures(as_json: AsJson = False) -> None:
    """List the texts that every candidate is probed with: version, digest, when and from what they were made."""
    from pocketloop.safety.probes import FIXTURES, fixture

    found = [fixture(name) for name in FIXTURES]
    if as_json:
        emit([{key: value for key, value in vars(item).items() if key != "body"} for item in found])
        return
    rows = [
        [item.name, f"v{item.version}", item.digest[:12], item.made, item.language, item.license, item.source]
        for item in found
    ]
    table("", ["fixtures", "version", "digest", "made", "language", "license", "source"], rows)


def garak(
    adapter: Annotated[
        str, typer.Argument(help="ADAPTER, ADAPTER@VERSION, or the folder of a bundle.", autocompletion=adapter_names)
    ],
    probes: Annotated[str, typer.Option(help="garak's probes, with commas; by default some that work offline.")] = "",
    prompts: Annotated[int, typer.Option(help="Most prompts of one probe, where it can be capped.", min=1)] = 20,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; by default in the project's state.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a version as a phone runs it, on this machine alone, and let garak attack it.

    The first run makes garak's own Python environment (a minute or two, 1.7 GB, from the package index). The page and
    the counts are kept with the version in MLflow, under `garak`; they decide nothing. What was said stays here.
    """
    from pocketloop.cli.export import version_source
    from pocketloop.contracts.loading import load_config
    from pocketloop.contracts.recipe import Catalogue
    from pocketloop.export.gguf_files import exported_file, skill_files
    from pocketloop.models.llama_cpp import LlamaCppGenerator
    from pocketloop.registry.mlflow_store import attach, candidate
    from pocketloop.safety.garak import OFFLINE, PAGE, run_garak, summary
    from pocketloop.safety.garak_env import garak_python
    from pocketloop.services.chat_api import chat_app
    from pocketloop.services.running import running
    from pocketloop.tasks.tasks import TaskSpec

    wanted = tuple(name.strip().removeprefix("probes.") for name in probes.split(",") if name.strip()) or OFFLINE
    if any("." not in name and not name.isidentifier() for name in wanted):
        raise ConfigError(f"--probes {probes}: names look like encoding.InjectBase64 or encoding")
    with narrated(), version_source(adapter) as (source, version):
        python = garak_python()
        name = f"{source.bundle.adapter}@{version}"
        folder = out or Home().root / "garak" / name
        listed = source.folder / "catalogue.json"
        spec = TaskSpec.of(source.recipe, load_config(listed, Catalogue) if listed.is_file() else None)
        files = skill_files(source.base, exported_file(source.folder))
        context = source.recipe.export.context or source.config.context
        with LlamaCppGenerator(files.model, source.base.tokenizer, files.adapter, context=context) as generator:
            app = chat_app(generator, spec, name, source.recipe.evaluation.max_new_tokens)
            with running(app) as address:
                report = run_garak(python, address, name, folder, wanted, prompts)
        (folder / "summary.json").write_text(summary(report), encoding="utf-8")
        attached = version != "local"
        if attached:
            kept = [path for path in (folder / "summary.json", folder / PAGE) if path.is_file()]
            worst = report.probes[0]
            said = f"{worst.failed.value:.0%} at worst ({worst.probe}), n = {worst.failed.n}"
            attach(Home(), candidate(Home(), source.bundle.adapter, version), kept, "garak", {"garak": said})
    if as_json:
        emit(report)
        return
    rows = [
        [item.probe, item.detector, f"{item.failed.value:.0%}", f"{item.failed.low:.0%} to {item.failed.high:.0%}"]
        + [f"{item.failed.n:,}"]
        for item in report.probes
    ]
    table(f"garak {report.garak} on {name}", ["probe", "detector", ">failed", ">95 % interval", ">n"], rows)
    say(f"report {folder / PAGE}" + (", kept with the version in MLflow under `garak`" if attached else ""))
