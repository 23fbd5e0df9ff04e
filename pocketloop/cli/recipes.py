"""`pocketloop recipe`: check a recipe, or show it with every default filled in."""

from typing import Annotated

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import emit, say
from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. train.stages.0.sft.epochs=1."),
]
Adapter = Annotated[
    str,
    typer.Argument(
        help="A recipe's name (configs/adapters/NAME.yaml) or the path of one.", autocompletion=adapter_names
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Check and show recipes.", no_args_is_help=True)
    group.command("check", epilog="Example: pocketloop recipe check functions")(check)
    group.command("show", epilog="Example: pocketloop recipe show functions --set train.lora.r=8")(show)
    app.add_typer(group, name="recipe")


def check(adapter: Adapter, overrides: Overrides = None) -> None:
    """Check a recipe, its base and its catalogue; a mistake is named with file, line and key."""
    recipe = load_recipe(adapter, overrides)
    base = load_base_config(recipe.base)
    catalogue = load_catalogue(recipe)
    size = f", {len(catalogue.labels or catalogue.functions)} answers" if catalogue else ""
    print(f"ok: {recipe.adapter} ({recipe.task}{size}) on {base.base}, digest {recipe.digest[:12]}")


def show(
    adapter: Adapter,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
) -> None:
    """Show the resolved recipe, every default included."""
    recipe = load_recipe(adapter, overrides)
    if as_json:
        emit({**recipe.model_dump(mode="json"), "digest": recipe.digest})
        return
    import yaml

    print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True).rstrip())
    say(f"[dim]# digest {recipe.digest}[/dim]")
