"""`pocketloop`: one command group per user task.

Heavy libraries are imported by the command that needs them, so that `--help` answers at once.
"""

import sys

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
    shapes,
    stacks,
    suites,
    ui,
)
from pocketloop.cli.console import complain
from pocketloop.contracts.errors import PocketloopError

app = typer.Typer(
    name="pocketloop",
    help="Turn what phones log, with consent, into the next adapter for their on-device language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would take half of the time that `--help` needs
    context_settings={"help_option_names": ["-h", "--help"]},
)
pipelines.add_to(app)
recipes.add_to(app)
plan.add_to(app)
stacks.add_to(app)
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
ui.add_to(app)


def main() -> None:
    """Run the command line: an expected error is one clear line on stderr and a non-zero exit status."""
    try:
        app()
    except PocketloopError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain("interrupted; the next run goes on from the last finished stage")
        sys.exit(130)
