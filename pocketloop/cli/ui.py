"""`pocketloop ui`: MLflow's pages on the project's own store."""

import os
from typing import Annotated

import typer

from pocketloop.cli.console import say
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: pocketloop ui --port 5001 --hardened")(ui)


def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
    hardened: Annotated[
        bool,
        typer.Option(
            "--hardened", help="Ask for a name and a password, keep roles apart, write an audit line a change."
        ),
    ] = False,
) -> None:
    """Serve MLflow with the project's store on this machine alone, until interrupted."""
    import sys

    from pocketloop.registry.access import ADMIN, hardened_environment, password_file, webhook_environment

    home = Home()
    home.root.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    say(f"MLflow on {url} (candidates: {url}/#/models); Ctrl-C stops it")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", home.mlflow_uri, "--artifacts-destination", home.mlflow_artifacts.as_uri()]
    environment = {**os.environ, **webhook_environment(home)}
    if hardened:
        command += ["--app-name", "pocketloop"]
        environment |= hardened_environment(home)
        os.umask(0o077)  # what the server writes (accounts and their journal, the audit line) is its owner's alone
        say(f"  the password of {ADMIN!r} lies in {password_file(home, ADMIN)}; who changed what in {home.audit}")
        say(f"  accounts  pocketloop review setup --url {url} --trainer NAME --reviewer NAME")
    os.execve(sys.executable, command, environment)  # noqa: S606 - the server takes this process's place
