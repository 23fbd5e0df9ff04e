"""`pocketloop new`: a recipe for somebody's own examples."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.completion import base_names
from pocketloop.cli.console import say
from pocketloop.contracts.errors import ConfigError, DataError
from pocketloop.contracts.home import Home, project_root
from pocketloop.contracts.loading import load_base_config, load_recipe

_MAIN_METRIC = {"intent": "intent_accuracy", "function_call": "function_exact", "chat": "chat_nonempty"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: pocketloop new support --task intent --examples mine.jsonl")(new)


def new(
    name: Annotated[str, typer.Argument(help="The adapter's name: lower case letters, digits, - and _.")],
    task: Annotated[str, typer.Option(help="intent, function_call (or function), or chat.")],
    examples: Annotated[Path, typer.Option(help="Examples to train on, .jsonl or .jsonl.gz.")],
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Held-out examples; without them a tenth of the examples is held out.")
    ] = None,
    base: Annotated[str, typer.Option(help="A base of configs/bases/.", autocompletion=base_names)] = "tiny",
    force: Annotated[bool, typer.Option(help="Replace a recipe of that name.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Write NAME.yaml and its catalogue NAME.json here instead of into configs/.")
    ] = None,
) -> None:
    """Write a recipe, and the catalogue of labels or functions that the examples use.

    The example files are copied into the project's home, so that the recipe stays valid when they move.
    """
    from pocketloop.contracts.files import atomic_file, write_json
    from pocketloop.data.example_files import import_examples, read_examples
    from pocketloop.tasks.derive import derive_catalogue

    kind = {"function": "function_call", "functions": "function_call"}.get(task, task)
    if kind not in _MAIN_METRIC:
        raise ConfigError(f"--task {task!r}: expected intent, function_call or chat")
    load_base_config(base)
    configs = project_root() / "configs"
    recipe_file = (folder.resolve() if folder else configs / "adapters") / f"{name}.yaml"
    if recipe_file.exists() and not force:
        raise ConfigError(f"{recipe_file} exists already; --force replaces it")
    kept = import_examples(Home(), examples)
    if kept.task != kind:
        raise DataError(f"{examples} holds {kept.task} examples, not {kind}")
    found, refused = read_examples(kept.uri, kind)
    held = import_examples(Home(), evaluation) if evaluation else None
    catalogue_file = (folder.resolve() if folder else configs / "catalogues") / f"{name}.json"
    if kind != "chat":
        everything = found + (read_examples(held.uri, kind)[0] if held else [])
        write_json(catalogue_file, derive_catalogue(everything).model_dump(exclude_defaults=True))
    catalogue = str(catalogue_file if folder else catalogue_file.relative_to(project_root()))
    with atomic_file(recipe_file) as temporary:
        text = _recipe(name, kind, base, catalogue, kept.uri, held.uri if held else None)
        temporary.write_text(text, encoding="utf-8")
    recipe = load_recipe(str(recipe_file))
    say(f"{len(found)} examples ({len(refused)} lines refused)")
    say(f"recipe     {recipe_file if folder else recipe_file.relative_to(project_root())}, digest {recipe.digest[:12]}")
    if recipe.catalogue:
        say(f"catalogue  {recipe.catalogue}")
    next_step = f"make run ADAPTER={name}    (or: pocketloop retrain {name})"
    say(f"next       {f'pocketloop retrain {recipe_file}' if folder else next_step}")


def _recipe(name: str, task: str, base: str, catalogue: str, uri: str, evaluation: str | None) -> str:
    lines = [f"adapter: {name}", f"task: {task}", f"base: {base}"]
    if task != "chat":
        lines.append(f"catalogue: {json.dumps(catalogue)}")
    lines += ["data:", "  sources:", f"    - {{kind: examples, uri: {json.dumps(uri)}}}"]
    if evaluation:
        lines += ["  validation: 0.02", "  test: 0.0        # there is a held-out file"]
    learning_rate = "5.0e-3" if base == "tiny" else "2.0e-4"
    lines += [
        "train:",
        "  lora: {r: 16, alpha: 32, dropout: 0.0, targets: all-linear}",
        "  stages:",
        f"    - sft: {{epochs: 3, learning_rate: {learning_rate}, batch_size: 16}}",
    ]
    if evaluation:
        lines += ["evaluation:", "  sets:", f"    - {{name: heldout, uri: {json.dumps(evaluation)}}}"]
    lines += ["gates:", f"  - {{metric: {_MAIN_METRIC[task]}, noninferior_to: champion, margin: 0.03}}"]
    return "\n".join(lines) + "\n"
