"""`pocketloop train-node`: lend this machine to training runs that ask for more than one."""

from typing import Annotated

import typer

from pocketloop.cli.console import say
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train-node", epilog="Example: POCKETLOOP_HOME=/srv/pocketloop pocketloop train-node --once")(
        train_node
    )


def train_node(
    once: Annotated[bool, typer.Option("--once", help="End after one training, with its status.")] = False,
) -> None:
    """Wait for training runs that ask for several machines (train.resources.nodes), and do this machine's share.

    POCKETLOOP_HOME must lie on the volume that the run's machine uses. Which address the run is found at is its host's;
    POCKETLOOP_NODE_ADDRESS there names another.
    """
    from pocketloop.training.nodes import work_for_others

    raise typer.Exit(work_for_others(Home().root / "training", once, say))
