"""`pocketloop evaluate plan`: how many held-out items the gates need."""

from typing import Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.cli.evaluate_group import evaluate_app
from pocketloop.cli.recipes import Adapter, Overrides
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_recipe

_SEEN = 10
"""How many earlier versions are asked how often two models differ."""


def add_to(app: typer.Typer) -> None:
    """Add the command to `pocketloop evaluate`."""
    evaluate_app.command("plan", epilog="Example: pocketloop evaluate plan functions --margin 0.02")(plan)


def plan(
    adapter: Adapter,
    margin: Annotated[
        float | None, typer.Option(help="Margin of non-inferiority, instead of the recipe's.", min=0.0001, max=0.9999)
    ] = None,
    power: Annotated[float, typer.Option(help="How likely a good candidate should pass.", min=0.5, max=0.999)] = 0.8,
    gain: Annotated[
        float, typer.Option(help="What a better candidate is ahead by, where superiority is asked.", min=0.001, max=0.9)
    ] = 0.05,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Say how many items of the evaluation set each gate needs, and what the set that there is can show.

    How often candidate and champion differ decides it; that is taken from the versions judged before.
    """
    from pocketloop.evaluation.planning import plan_gates
    from pocketloop.registry.mlflow_store import read_decisions
    from pocketloop.registry.set_uses import newest_uses

    recipe, home = load_recipe(adapter, overrides), Home()
    uses = newest_uses(home, recipe.adapter)
    items = uses[0].items if uses else (recipe.evaluation.sets[0].limit if recipe.evaluation.sets else None)
    gates = plan_gates(recipe, read_decisions(home, recipe.adapter, _SEEN), items, margin, power, gain)
    if as_json:
        emit([gate.model_dump(mode="json") for gate in gates])
        return
    rows = [
        [
            gate.gate,
            f"{gate.share:.1%}",
            gate.source,
            "?" if gate.items is None else f"{gate.items:,}",
            "" if gate.chance is None else f"{gate.chance:.0%}",
            f"{gate.needed:,}",
            {None: "", True: "enough", False: "too few"}[gate.enough],
        ]
        for gate in gates
    ]
    columns = ["gate", ">share", "from", ">items", ">chance", f">for {power:.0%}", ""]
    table(f"{recipe.adapter}: items that each gate needs", columns, rows)
    say("share: of items on which the two models differ, or of right ones for a floor")
    if any(gate.enough is False for gate in gates):
        say("with too few items a good candidate is often inconclusive, and inconclusive does not ship")
