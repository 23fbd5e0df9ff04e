"""Collect: from the event log and example files to the records that this recipe may learn from."""

from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import CollectReport
from steps.stage import stage


@step(enable_cache=False)
def collect(recipe: Recipe) -> tuple[Annotated[Folder, "collected"], Annotated[CollectReport, "collect_report"]]:
    """Always looks at the log; with nothing new it gives the same files, and every later stage is reused."""
    from pocketloop.data.collect import collect as collect_records

    with stage("collect") as this:
        report = collect_records(recipe, Home().events, this.scratch, datetime.now(UTC))
        left_out = ", ".join(f"{count} {reason}" for reason, count in report.count.left_out.items())
        this.done(
            f"{report.events} events, {report.examples} examples" + (f"; left out: {left_out}" if left_out else ""),
            events=report.events,
            examples=report.examples,
            left_out=report.count.left_out,
        )
        return Folder.of(this.scratch), report
