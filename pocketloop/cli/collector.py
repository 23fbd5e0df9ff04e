"""`pocketloop collector serve`: where phones post their telemetry."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.console import say
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(help="The service that phones post telemetry to.", no_args_is_help=True)
    group.command(epilog="Example: pocketloop collector serve --port 8090")(serve)
    app.add_typer(group, name="collector")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
    folder: Annotated[Path | None, typer.Option(help="Where reports are kept; by default the project's state.")] = None,
    flush_seconds: Annotated[
        float, typer.Option(min=0.1, help="Reports reach the Parquet files, and so `watch`, after this long at most.")
    ] = 60.0,
) -> None:
    """Take telemetry reports over HTTP and write them as Parquet for `pocketloop watch`, until interrupted.

    A report that was answered is on disk, whatever happens to this process.
    """
    from pocketloop.services.collector import serve as run

    place = folder or Home().telemetry
    say(f"collecting on http://{host}:{port}/telemetry into {place}; Ctrl-C stops it")
    run(place, host, port, flush_seconds=flush_seconds)
