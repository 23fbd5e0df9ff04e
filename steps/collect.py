"""Collect: from what phones posted and from example files to the records that this recipe may learn from."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import CollectReport
from steps.stage import stage

if TYPE_CHECKING:
    from pocketloop.data.received import Received


@step(enable_cache=False)
def collect(recipe: Recipe) -> tuple[Annotated[Folder, "collected"], Annotated[CollectReport, "collect_report"]]:
    """Always looks at what arrived; with nothing new it gives the same files, and every later stage is reused."""
    from pocketloop.contracts.loading import load_collector
    from pocketloop.data.collect import collect as collect_records
    from pocketloop.data.received import Received

    home, now, config = Home(), datetime.now(UTC), load_collector()
    with stage("collect") as this:
        news = ""
        if any(source.kind == "events" for source in recipe.data.sources):
            news = _take_in(home, Received.of(config, home), now, config.retention_days)
        report = collect_records(recipe, home.events, this.scratch, now)
        left_out = ", ".join(f"{count} {reason}" for reason, count in report.count.left_out.items())
        this.done(
            f"{report.events} events, {report.examples} examples{news}"
            + (f"; left out: {left_out}" if left_out else ""),
            events=report.events,
            examples=report.examples,
            left_out=report.count.left_out,
        )
        return Folder.of(this.scratch), report


def _take_in(home: Home, received: "Received", now: datetime, retention_days: float) -> str:
    """Bring the log up to date; says what changed."""
    from pocketloop.data.taking_in import take_in
    from steps.forget import forget

    taken = take_in(
        home.events, received, now, retention_days, lambda device_id: forget(home, received, device_id, now)
    )
    for damaged in taken.damaged:
        print(f"  ! {damaged}", flush=True)
    return "".join(f"; {count} {what}" for what, count in taken.counts.items() if count)
