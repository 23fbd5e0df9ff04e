"""`pocketloop collector`: where phones post their events and telemetry, and which apps may."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The service that phones post their events and telemetry to.", no_args_is_help=True)
    group.command(
        epilog="Example: pocketloop collector serve --port 8090 · POCKETLOOP_EVENTS=s3://bucket/events pocketloop"
        " collector serve"
    )(serve)
    tokens = typer.Typer(help="Which apps may post events: a token each.", no_args_is_help=True)
    tokens.command("add", epilog="Example: pocketloop collector token add assistant-android")(add_token)
    tokens.command("list", epilog="Example: pocketloop collector token list --json")(list_tokens)
    tokens.command("revoke", epilog="Example: pocketloop collector token revoke assistant-android")(revoke_token)
    group.add_typer(tokens, name="token")
    app.add_typer(group, name="collector")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
    folder: Annotated[
        Path | None, typer.Option(help="Where telemetry reports are kept; by default the project's state.")
    ] = None,
    flush_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Events reach the store, and reports the Parquet files, after this long at most;"
            " by default as configs/collector.yaml says.",
        ),
    ] = None,
) -> None:
    """Take events and telemetry reports over HTTP, until interrupted.

    Events go to the store of configs/collector.yaml, for the next retrain to collect; reports become Parquet for
    `pocketloop watch`. What was answered is on disk, whatever happens to this process.
    """
    from pocketloop.contracts.loading import load_collector
    from pocketloop.services.collector import create_app
    from pocketloop.services.collector import serve as run
    from pocketloop.services.event_posts import EventIntake

    config = load_collector()
    if flush_seconds is not None:
        config = config.model_copy(update={"flush_seconds": flush_seconds})
    intake = EventIntake.of(config, Home())
    place = folder or Home().telemetry
    apps = intake.tokens.tokens()
    say(f"events     http://{host}:{port}/v1/events into {intake.store.address}")
    say(f"telemetry  http://{host}:{port}/telemetry into {place}")
    say(f"watch it   http://{host}:{port}/metrics and /healthz; Ctrl-C stops it")
    if not apps:
        say("no app may post events yet: pocketloop collector token add NAME")
    run(create_app(place, events=intake, flush_seconds=config.flush_seconds), host, port)


def add_token(
    name: Annotated[str, typer.Argument(help="The app, as metrics name it.")], as_json: AsJson = False
) -> None:
    """Make a token for an app and print it, this once: only its digest is kept."""
    from pocketloop.services.app_tokens import AppTokens

    token = AppTokens.of(Home()).add(name)
    if as_json:
        emit({"name": name, "token": token})
        return
    print(token)
    hint = f"{name} posts events with the header `Authorization: Bearer TOKEN`; docs/collector.md has the protocol"
    typer.echo(hint, err=True)


def list_tokens(as_json: AsJson = False) -> None:
    """Which apps may post events."""
    from pocketloop.services.app_tokens import AppTokens

    found = [{"name": token.name, "created": token.created.isoformat()} for token in AppTokens.of(Home()).tokens()]
    if as_json:
        emit(found)
    elif found:
        table("apps that may post events", ["app", "since"], [[row["name"], row["created"][:10]] for row in found])
    else:
        say("no app may post events yet: pocketloop collector token add NAME")


def revoke_token(name: Annotated[str, typer.Argument(help="The app.")]) -> None:
    """Take an app's token away; a collector that runs refuses it from now on."""
    from pocketloop.services.app_tokens import AppTokens

    AppTokens.of(Home()).revoke(name)
    say(f"{name} may post no more events")
