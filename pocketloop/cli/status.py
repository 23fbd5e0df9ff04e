"""`pocketloop status`, and `pocketloop` alone: where things stand, and what to do next."""

import typer

from pocketloop.cli.console import AsJson, emit, say


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: pocketloop status --json")(status)


def status(as_json: AsJson = False) -> None:
    """Show where things stand: state, events, last runs, what waits for review, rollouts, and what to do next."""
    from datetime import UTC, datetime

    from rich.markup import escape

    from pocketloop.cli.standing import Page, lines, next_steps
    from pocketloop.cli.standing_facts import read_standing
    from pocketloop.contracts.home import Home

    now = read_standing(Home(), datetime.now(UTC))
    if as_json:
        emit(Page(standing=now, next=next_steps(now)))
        return
    for label, text in lines(now):
        say(f"[bold]{label:10}[/bold] {escape(text)}")
