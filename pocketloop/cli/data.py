"""`pocketloop data`: bring events and examples in, look at what is there, forget devices, make demo data."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli import ner, scrub
from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.cli.inspecting import diff, inspect_release
from pocketloop.contracts.home import Home

if TYPE_CHECKING:
    from pocketloop.data.event_log import ImportReport
    from steps.forget import ForgetReport

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")]


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Import, inspect, forget and generate data.", no_args_is_help=True)
    group.command("import", epilog="Example: pocketloop data import phones/2026-11-20.jsonl.gz")(import_data)
    group.command("inspect", epilog="Example, the newest release: pocketloop data inspect functions")(inspect)
    group.command("diff", epilog="Example: pocketloop data diff functions~1 functions")(diff)
    group.command("demo", epilog="Example, 100 more events: pocketloop data demo --add 100")(demo)
    scrub.add_to(group)
    ner.add_to(group)
    group.command("forget", epilog="Example: pocketloop data forget 3f0c9a2e-phone --dry-run")(forget)
    group.command("expire", epilog="Example, what would go: pocketloop data expire --days 90 --dry-run")(expire)
    app.add_typer(group, name="data")


def import_data(
    files: Annotated[list[str], typer.Argument(help="JSON lines, plain or gzip; - reads standard input.")],
    as_json: AsJson = False,
) -> None:
    """Add interaction events to the log, or keep an example file for a recipe.

    What a file holds is told by its first line. An event that is already there counts once; a line that cannot be
    used is quarantined with its reason, and the rest goes on. Importing the same file again changes nothing.
    """
    from pocketloop.data.event_log import import_file
    from pocketloop.data.example_files import import_examples, is_example_file

    reports = []
    for file in files:
        if file != "-" and is_example_file(Path(file)):
            examples = import_examples(Home(), Path(file))
            reports.append(examples.model_dump(mode="json"))
            if not as_json:
                say(f"{file}: {examples.examples} {examples.task} examples, {examples.refused} refused")
                say(f'  in a recipe: - {{kind: examples, uri: "{examples.uri}"}}')
            continue
        report = import_file(file, Home().events, datetime.now(UTC))
        reports.append(report.model_dump(mode="json"))
        if not as_json:
            say(f"{report.name}: {_counts(report)}")
            for reason, count in report.quarantined.items():
                say(f"  {count:6} {reason}")
            if report.error:
                say(f"  [yellow]stopped early:[/yellow] {report.error}")
    if as_json:
        emit(reports)


def inspect(
    release: Annotated[
        str | None,
        typer.Argument(
            help="A release: ADAPTER (its newest), ADAPTER~1 (the one before), or a digest.",
            autocompletion=adapter_names,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a dataset release; without one, the event log and every quarantined line with its place and reason."""
    from pocketloop.data.event_log import inspect_log

    if release:
        inspect_release(release, as_json)
        return

    summary = inspect_log(Home().events)
    if as_json:
        emit(summary)
        return
    say(f"[bold]{summary.events}[/bold] events of {summary.devices} devices in {Home().events}")
    if summary.events:
        say(f"  from {summary.first_ts} to {summary.last_ts}")
    say(f"  {summary.pulled} parts of the landing zone taken in; {summary.forgotten} devices forgotten")
    for name in ("by_skill", "by_consent", "by_policy", "quarantined"):
        for key, count in getattr(summary, name).items():
            say(f"  {name.removeprefix('by_'):8} {key:24} {count:7}")
    if summary.quarantine:
        table(
            "Quarantined",
            ["reason", "detail", "where", "event"],
            [[row.reason, row.detail, row.where, row.event_id or ""] for row in summary.quarantine],
        )


def demo(
    events: Annotated[int, typer.Option(help="Size of the demo fleet's log.")] = 7000,
    add: Annotated[int, typer.Option(help="Post this many events more than the log has demo events.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the fleet; the same seed gives the same events.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the events to this file instead of importing them.")] = None,
) -> None:
    """Let the demo fleet of a household assistant post its events, and import them; done once, it does nothing more."""
    from pocketloop.contracts.files import write_jsonl
    from pocketloop.data.demo import demo_events
    from pocketloop.data.event_log import import_file

    home = Home()
    posted = sorted((home.root / "demo").glob(f"events-{seed}-*.jsonl"), key=_end)
    now = datetime.now(UTC)
    if out or add or not posted:
        # The fleet's clock stands still at the day of its first posting: events that repeat must be equal.
        day = posted[0].stem.split("-")[2] if posted and not out else f"{now:%Y%m%d}"
        first = _end(posted[-1]) if posted and not out else 0
        size = add or events
        path = out or home.root / "demo" / f"events-{seed}-{day}-{first + size}.jsonl"
        until = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        write_jsonl(path, demo_events(size, seed, first, now=until))
        if out:
            say(f"{size} events of the demo fleet in {out}")
            return
        posted.append(path)
    for path in posted:
        say(f"demo fleet, {path.name}: {_counts(import_file(path, home.events, now))}")


def forget(
    device: Annotated[str, typer.Argument(help="The device's id, as its events carry it.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Erase a device's events everywhere, and refuse them from now on.

    Raw events go from the landing zone, the log and its quarantine; scrubbed ones from caches and intermediate results.
    Dataset releases stay, scrubbed as they are: they are listed with the versions that learned from them, and the next
    retrain leaves the device out. What is remembered of the device is a digest of its id. May be repeated at any time.
    """
    from pocketloop.cli.running import environment
    from pocketloop.contracts.loading import load_collector

    home = environment()
    from pocketloop.data.received import Received
    from steps.forget import forget as forget_device

    report = forget_device(home, Received.of(load_collector(), home), device, datetime.now(UTC), dry_run)
    if as_json:
        emit(report)
        return
    _tell_forgotten(report)


def expire(
    days: Annotated[float | None, typer.Option(help="Most days; by default those of configs/collector.yaml.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove raw events that are too old from the log, its quarantine and the landing zone; collect does so as well."""
    from pocketloop.contracts.loading import load_collector
    from pocketloop.data.received import Received
    from pocketloop.data.retention import expire as expire_events

    home, config = Home(), load_collector()
    age = config.retention_days if days is None else days
    report = expire_events(home.events, Received.of(config, home), datetime.now(UTC), age, dry_run)
    if as_json:
        emit(report)
        return
    say(f"older than {age:g} days (before {report.before}){_would(dry_run)} removed:")
    say(f"  {report.events:7} events of the log")
    say(f"  {report.quarantined:7} quarantined lines")
    say(f"  {report.parts:7} parts of the landing zone")


def _tell_forgotten(report: "ForgetReport") -> None:
    if not report.known:
        say(f"nothing of this device (sha256 {report.device[:12]}) was found")
    else:
        say(f"device {report.group} (sha256 {report.device[:12]}){_would(report.dry_run)} erased:")
    places = [
        (report.raw.events, "events of the log"),
        (report.raw.received, "events in the landing zone"),
        (report.raw.journal, "events in the collector's journal"),
        (report.raw.quarantined, "quarantined lines"),
        (report.raw.demo, "events of the demo fleet's files"),
        (report.kept, "entries kept by stages of the curation"),
        (len(report.artifacts), "intermediate results of earlier runs"),
        (report.answers, "answers that were put before people in MLflow"),
        (report.raw.verdicts, "verdicts of people in imported files"),
    ]
    for count, what in places:
        if count:
            say(f"  {count:7} {what}")
    if report.releases:
        columns = ["release", "adapter", ">records"]
        rows = [[found.digest[:12], found.adapter, str(found.records)] for found in report.releases]
        table("Releases with its scrubbed records (they stay, and are not trained on again)", columns, rows)
    if report.versions:
        rows = [[f"{v.adapter}@{v.version}", v.state, v.dataset_digest[:12]] for v in report.versions]
        table("Versions that learned from them", ["version", "state", "release"], rows)
    for adapter in sorted({found.adapter for found in report.releases}):
        say(f"next: pocketloop retrain {adapter}   (leaves the device out)")
    if report.raw.waiting:
        say(f"{report.raw.waiting} events wait in the journal of a running collector, which drops them")
    if report.running:
        say("[yellow]a pipeline is running and may hold its records: run this again when it has ended[/yellow]")
    if not report.dry_run:
        say("its events are refused from now on, here and by the collector")


def _would(dry_run: bool) -> str:
    return " would be" if dry_run else ""


def _end(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])


def _counts(report: "ImportReport") -> str:
    refused = sum(report.quarantined.values())
    hint = " (pocketloop data inspect)" if refused else ""
    return f"{report.new} new events, {report.duplicates} known already, {refused} quarantined{hint}"
