"""`pocketloop review`: what reviewers do, from a terminal; and the accounts and the service behind it."""

from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.home import Home

if TYPE_CHECKING:
    from pocketloop.registry.mlflow_store import Candidate

Version = Annotated[
    str, typer.Argument(help="ADAPTER or ADAPTER@VERSION; without a version, the newest.", autocompletion=adapter_names)
]
One = Annotated[str, typer.Argument(help="ADAPTER@VERSION.", autocompletion=adapter_names)]
Url = Annotated[
    str, typer.Option(help="Address of the MLflow server (`pocketloop ui`).", envvar="POCKETLOOP_MLFLOW_URL")
]
_LOCAL = "http://127.0.0.1:5000"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Candidates, what reviewers made of them, and who may review.", no_args_is_help=True)
    group.command("list", epilog="Example: pocketloop review list --json")(list_candidates)
    group.command("show", epilog="Example: pocketloop review show functions@2")(show)
    group.command(epilog="Example: pocketloop review approve functions@2")(approve)
    group.command(epilog='Example: pocketloop review reject functions@2 --reason "calls the wrong contact"')(reject)
    group.command(epilog="Example: pocketloop review setup --trainer alice --reviewer bob")(setup)
    group.command(epilog="Example: pocketloop review users --json")(users)
    group.command(epilog="Example: pocketloop review serve --port 5100 --poll 300")(serve)
    app.add_typer(group, name="review")


def list_candidates(
    adapter: Annotated[
        str | None, typer.Argument(help="One adapter; without it, all.", autocompletion=adapter_names)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the candidates, newest first, with their verdicts and what reviewers made of them."""
    from rich.markup import escape

    from pocketloop.registry.mlflow_store import candidates
    from pocketloop.registry.review import standing

    home = Home()
    found = candidates(home, adapter)
    said = {name: standing(home, name) for name in sorted({item.adapter for item in found})}
    if as_json:
        emit([{**c.model_dump(mode="json"), "review": said[c.adapter].get(c.version, "")} for c in found])
        return
    if not found:
        say(f"no candidate is registered; `pocketloop retrain {adapter or 'ADAPTER'}` makes one")
        return
    rows = [
        [
            f"{c.adapter}@{c.version}",
            c.verdict,
            ", ".join(f"{name} {value:.3f}" for name, value in sorted(c.metrics.items())),
            escape(said[c.adapter].get(c.version, "")) or _waits(c),
            c.created,
        ]
        for c in found
    ]
    table("", ["candidate", "verdict", "metrics on held-out data", "review", "registered"], rows)


def _waits(found: "Candidate") -> str:
    if found.merged:
        return "cannot be published: merged into its base"
    return "waits for a reviewer" if found.verdict == "pass" else ""


def show(version: Version, as_json: AsJson = False) -> None:
    """Show a candidate's card: scores beside base and champion, gates, safety, exports, rollout plan."""
    from pocketloop.registry.mlflow_store import candidate
    from pocketloop.registry.review import read_card, standing

    home = Home()
    adapter, number = split_version(version)
    found = candidate(home, adapter, number)
    if as_json:
        emit(found)
        return
    from rich.markdown import Markdown
    from rich.markup import escape

    from pocketloop.cli.console import console

    card, doubt = read_card(home, adapter, found.version)
    console().print(Markdown(card))
    if doubt:
        say(f"\n[bold red]do not believe this card[/bold red]: {escape(doubt)}")
    said = standing(home, adapter).get(found.version, "")
    say(f"\nreview: {escape(said) or 'nobody has approved or rejected it yet'}")


def approve(version: One) -> None:
    """Approve a candidate: what *Promote model* does in MLflow, after checking that the copy will count.

    In a shared MLflow you act under your own name: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """
    from pocketloop.registry.mlflow_store import released_name
    from pocketloop.registry.review import approve as copy

    adapter, number = _one(version)
    released = copy(Home(), adapter, number)
    say(f"[bold]{version}[/bold] is approved as {released_name(adapter)}@{released}")
    say(f"  next      pocketloop promote {adapter}   (`pocketloop review serve` does it by itself)")


def reject(
    version: One, reason: Annotated[str, typer.Option(help="Why; others read it on the candidate's page.")]
) -> None:
    """Turn a candidate down for good: no copy of it counts, also one that was made before."""
    from rich.markup import escape

    from pocketloop.registry.review import reject as turn_down

    adapter, number = _one(version)
    turn_down(Home(), adapter, number, reason)
    say(f"[bold]{version}[/bold] is rejected: {escape(reason)}")


def setup(
    url: Url = _LOCAL,
    trainer: Annotated[list[str] | None, typer.Option(help="Account of a trainer; may be repeated.")] = None,
    reviewer: Annotated[list[str] | None, typer.Option(help="Account of a reviewer; may be repeated.")] = None,
) -> None:
    """Set up who may do what in an MLflow that was started with `pocketloop ui --hardened`; may be repeated.

    Trainers write candidates, reviewers write released models and nothing else, and everybody with an account may
    read. New accounts get random passwords, each in a file that only you can read: hand it over, then delete it.
    """
    from pocketloop.registry.access import set_up_accounts

    for user, what in set_up_accounts(Home(), url, trainer or [], reviewer or []).items():
        say(f"{user}: {what}")


def users(url: Url = _LOCAL, as_json: AsJson = False) -> None:
    """List the accounts of a hardened MLflow and their roles."""
    from pocketloop.registry.access import list_accounts

    found = list_accounts(Home(), url)
    if as_json:
        emit(dict(found))
        return
    table("", ["account", "roles"], [[user, ", ".join(roles)] for user, roles in found.items()])


def serve(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1 that MLflow posts to.")] = 5100,
    url: Url = _LOCAL,
    poll: Annotated[float, typer.Option(help="Seconds between polls for what webhooks lost.", min=1)] = 300,
) -> None:
    """Promote approved versions as soon as a reviewer has pressed the button, until interrupted.

    MLflow's webhook wakes it, signed and never twice; a poll finds what no webhook told. Without a server at --url it
    polls alone.
    """
    import uvicorn
    from rich.markup import escape

    from pocketloop.registry.access import accounts, register_webhook, webhook_secret
    from pocketloop.registry.review import waiting
    from pocketloop.services.webhook import PATH, Promoter, create_app, promote_in_a_process

    home = Home()
    try:
        register_webhook(home, url, f"http://127.0.0.1:{port}{PATH}")
        say(f"MLflow at {url} posts to http://127.0.0.1:{port}{PATH}; a poll every {poll:g} s finds what it loses")
    except RegistryError as error:
        say(f"no webhook ({escape(str(error))}); a poll every {poll:g} s finds approvals")
    with Promoter(promote_in_a_process, lambda: waiting(home), poll, lambda line: say(escape(line))) as promoter:
        app = create_app(webhook_secret(home), promoter.wake, accounts(home) / "deliveries.db")
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def split_version(text: str) -> tuple[str, str | None]:
    """ADAPTER@VERSION or ADAPTER as adapter and version; without a version `None`: the newest."""
    adapter, _, number = text.partition("@")
    return adapter, number or None


def _one(version: str) -> tuple[str, str]:
    adapter, number = split_version(version)
    if number is None or not number.isdecimal():
        raise RegistryError(f"{version!r}: name one version, as in functions@2 (`pocketloop review list`)")
    return adapter, number
