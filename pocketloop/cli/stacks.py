"""`pocketloop stack`: what ZenML runs pipelines on, brought in line with a file, and checked before a run."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say
from pocketloop.cli.running import environment
from pocketloop.contracts.errors import ConfigError

if TYPE_CHECKING:
    from stacks.plan import StackPlan

File = Annotated[str, typer.Argument(help="A stack of stacks/ by its name, or the path of a stack file.")]


def add_to(app: typer.Typer) -> None:
    """Add the group `stack`."""
    group = typer.Typer(help="What pipelines run on: this machine, a team's servers, a cluster.", no_args_is_help=True)
    group.command(epilog="Example: pocketloop stack apply team")(apply)
    group.command(epilog="Example: pocketloop stack diff stacks/kubeflow.yaml --json")(diff)
    group.command(epilog="Example: pocketloop stack check kubeflow functions")(check)
    group.command(epilog="Example: pocketloop stack images --registry registry.example.com/team --build --push")(images)
    app.add_typer(group, name="stack")


def apply(file: File) -> None:
    """Bring ZenML in line with a stack file and make it the active stack; applying it again changes nothing."""
    environment()
    from stacks.apply import apply_stack
    from stacks.config import stack_file

    _print(apply_stack(stack_file(file)), done=True)


def diff(file: File, as_json: AsJson = False) -> None:
    """Say what applying a stack file would change, and change nothing. Values of secrets are never shown."""
    environment()
    from zenml.client import Client

    from stacks.config import load_stack, stack_file
    from stacks.plan import plan_stack

    path = stack_file(file)
    plan = plan_stack(Client(), path, load_stack(path))
    if as_json:
        emit({**plan.model_dump(mode="json"), "changed": plan.changed})
    else:
        _print(plan, done=False)


def check(
    file: File,
    adapter: Annotated[str | None, typer.Argument(help="An adapter that is to be trained there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find before a run what a run would find too late; the exit status is 2 if a check failed."""
    environment()
    from stacks.check import check_stack
    from stacks.config import stack_file

    checks = check_stack(stack_file(file), adapter)
    if as_json:
        emit([found.model_dump() for found in checks])
    else:
        for found in checks:
            from rich.markup import escape

            word = {True: "[green]ok[/green]", False: "[red]failed[/red]", None: "not seen"}[found.ok]
            say(f"{word}  {found.what}: {escape(found.said)}")
    if failed := [found.what for found in checks if found.ok is False]:
        raise ConfigError(f"{file}: {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")


def images(
    registry: Annotated[
        str | None, typer.Option(help="Registry and folder; POCKETLOOP_REGISTRY where it is not given.")
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="Build the images with Docker.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Push them; a cluster pulls them from there.")] = False,
) -> None:
    """Print the commands that build an image for each kind of step, or run them.

    An image's tag is the digest of its locked packages and of the code: what is in the registry already is what a run
    of this checkout needs.
    """
    registry = registry or os.environ.get("POCKETLOOP_REGISTRY")
    if not registry:
        raise ConfigError("which registry? --registry registry.example.com/team, or set POCKETLOOP_REGISTRY")
    from stacks.images import commands, run_all

    wanted = commands(registry, push=push)
    if build:
        run_all(wanted)
        return
    for command in wanted:
        print(" ".join(command))


def _print(plan: "StackPlan", done: bool) -> None:
    from rich.markup import escape

    tense: dict[str, str] = {} if done else {"created": "to create", "updated": "to update"}
    for part in plan.components:
        say(f"{part.type} ({part.flavor}): {tense.get(part.what, part.what)}")
        for change in part.changes:
            old = "" if part.what == "created" else f"{change.old if change.old is not None else 'nothing'} → "
            say(escape(f"  {change.key}: {old}{change.new if change.new is not None else 'removed'}"))
    for kind in plan.removed:
        say(f"{kind}: {'taken' if done else 'to take'} out of the stack; the file does not name it")
    active = ", now active" if plan.activated and done else ", to be made active" if plan.activated else ""
    say(f"stack {plan.name}: {tense.get(plan.stack, plan.stack)}{active}")
