"""`pocketloop ui`: MLflow's pages on the project's own store."""

import os
from typing import Annotated

import typer

from pocketloop.cli.console import say
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: pocketloop ui --port 5001")(ui)


def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Serve MLflow with the project's store on this machine alone, until interrupted."""
    import sys

    home = Home()
    home.root.mkdir(parents=True, exist_ok=True)
    say(f"MLflow on http://127.0.0.1:{port} (candidates: http://127.0.0.1:{port}/#/models); Ctrl-C stops it")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", home.mlflow_uri, "--artifacts-destination", home.mlflow_artifacts.as_uri()]
    os.execv(sys.executable, command)  # noqa: S606 - the server takes this process's place
