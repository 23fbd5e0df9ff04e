"""`pocketloop`: one command group per user task.

Heavy libraries and contracts are imported by the command that needs them, so that `--help` answers at once.
"""

import sys
from typing import Annotated

import typer

from pocketloop.cli import (
    cdn,
    collector,
    compiling,
    data,
    delivery,
    device,
    evaluate_group,
    evaluation_plan,
    export,
    fleet,
    gates,
    labels,
    new,
    pipelines,
    plan,
    recipes,
    registry,
    review,
    safety,
    schedule,
    shapes,
    stacks,
    status,
    suites,
    train_node,
    ui,
)
from pocketloop.cli.failing import run_command

app = typer.Typer(
    name="pocketloop",
    help="Turn what phones log, with consent, into the next adapter for their on-device language model. Without a "
    "command: where things stand, and what to do next.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would take half of the time that `--help` needs
    context_settings={"help_option_names": ["-h", "--help"]},
)
status.add_to(app)
pipelines.add_to(app)
recipes.add_to(app)
plan.add_to(app)
data.add_to(app)
labels.add_to(app)
new.add_to(app)
registry.add_to(app)
evaluation_plan.add_to(app)
stacks.add_to(app)
evaluate_group.add_to(app)
suites.add_to(app)
gates.add_to(app)
review.add_to(app)
delivery.add_to(app)
cdn.add_to(app)
collector.add_to(app)
compiling.add_to(app)
device.add_to(app)
fleet.add_to(app)
shapes.add_to(app)
export.add_to(app)
safety.add_to(app)
schedule.add_to(app)
train_node.add_to(app)
ui.add_to(app)


@app.callback(epilog="Example: pocketloop status --json    exit statuses, completion, colours: docs/command-line.md")
def where_things_stand(
    context: typer.Context,
    verbose: Annotated[  # taken out before Typer sees it, so that it may stand anywhere
        bool, typer.Option("--verbose", help="Show tracebacks and what libraries log; may stand anywhere.")
    ] = False,
) -> None:
    """Show where things stand where no command is named."""
    if context.invoked_subcommand is None:
        status.status()


def main() -> None:
    """Run the command line: an expected error is one clear line on stderr and a non-zero exit status."""
    sys.exit(run_command(typer.main.get_command(app), sys.argv[1:]))
