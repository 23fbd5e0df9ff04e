"""`pocketloop evaluate suite`: public suites on a base, or on an adapter, with no network."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.completion import base_names
from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.cli.evaluate_group import evaluate_app
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""
    evaluate_app.command(epilog="Example: pocketloop evaluate suite everyday --base tiny --limit 50")(suite)


def suite(
    name: Annotated[str, typer.Argument(help="configs/suites/NAME.yaml, or a task file of lm-eval.")],
    base: Annotated[
        str, typer.Option(help="configs/bases/NAME.yaml, or such a file.", autocompletion=base_names)
    ] = "tiny",
    adapter: Annotated[Path | None, typer.Option(help="Folder of a bundle, or with a peft adapter.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first N items only.")] = None,
    chat_template: Annotated[bool, typer.Option("--chat", help="Show each item as a user's turn.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda ...")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Run a suite from files on disk through lm-eval, which is installed beside the project on first use."""
    from pocketloop.contracts.loading import load_base_config
    from pocketloop.evaluation.public_suites import run_suite, suite_file

    path, config = suite_file(name), load_base_config(base)
    weights = Path(config.source)
    if not weights.is_dir():
        raise ConfigError(f"base {base}: {config.source} is no folder; fetch it, and name the folder as `source`")
    peft = adapter / "adapter" if adapter and (adapter / "adapter").is_dir() else adapter
    if peft and not (peft / "adapter_config.json").is_file():
        raise ConfigError(f"{adapter} holds no peft adapter (no adapter_config.json)")
    model = "-".join(filter(None, [config.base, adapter.resolve().name if adapter else ""]))
    found = run_suite(
        path,
        weights,
        Home().suites / path.stem / model,
        adapter=peft,
        limit=limit,
        dtype=config.dtype,
        chat_template=chat_template,
        device=device,
    )
    if as_json:
        emit(found)
        return
    rows = [[metric, f"{e.value:.3f}", f"{e.low:.3f} – {e.high:.3f}", str(e.n)] for metric, e in found.metrics.items()]
    table(f"{found.suite}: {found.model}", ["metric", ">value", "95 % interval", ">n"], rows)
    say(f"Every item: {found.samples}")
