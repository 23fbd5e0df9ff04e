"""`pocketloop plan`: what training a recipe will hold and take, before anything starts."""

from typing import Annotated

import typer

from pocketloop.cli.console import AsJson, emit
from pocketloop.cli.recipes import Adapter, Overrides
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_recipe


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: pocketloop plan functions --device t4 --set train.lora.method=qlora")(plan)


def plan(
    adapter: Adapter,
    overrides: Overrides = None,
    device: Annotated[
        str | None, typer.Option(help="A card of configs/devices.yaml, or `here`; exit status 1 where it does not fit.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Plan a training: trainable parameters, peak memory by part, tokens, time, and which devices it fits.

    Lengths are counted in the newest dataset release; without one, rows are taken to be as long as the recipe allows.
    """
    from pocketloop.cli.planning import make_plans, show
    from pocketloop.training.remedies import refuse_if_too_large

    found = make_plans(Home(), load_recipe(adapter, overrides), device)
    if as_json:
        emit(found.as_json())
    else:
        show(found, in_detail=device is not None)
    if device:
        refuse_if_too_large(found.plans[device], found.remedies.get(device, []))
