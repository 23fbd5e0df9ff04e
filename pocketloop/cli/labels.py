"""`pocketloop labels`: how judge and people agree, what people should look at, and their verdicts from files."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.contracts.home import Home

Adapter = Annotated[str, typer.Argument(help="Adapter, e.g. functions.", autocompletion=adapter_names)]


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Judges, people's verdicts, and how they agree.", no_args_is_help=True)
    group.command("status", epilog="Example: pocketloop labels status functions")(status)
    group.command("import", epilog="Example: pocketloop labels import reviewed.jsonl")(import_labels)
    group.command("disagreements", epilog="Example: pocketloop labels disagreements functions --open")(disagreements)
    app.add_typer(group, name="labels")


def status(adapter: Adapter, as_json: AsJson = False) -> None:
    """Show how the newest dataset release was labelled: by which judge, how it agrees with people, what was made."""
    from pocketloop.contracts.errors import DataError
    from pocketloop.data.release import latest_release, read_release

    digest = latest_release(Home(), adapter)
    if digest is None:
        raise DataError(f"{adapter} has no dataset release yet; run `pocketloop curate {adapter}`")
    report = read_release(Home().releases / digest).label
    if as_json:
        emit({"release": digest, **report.model_dump(mode="json")})
        return
    count = report.count
    say(f"[bold]{adapter}[/bold], release {digest[:12]}: judge {report.judge}")
    say(f"  {count.kept} of {count.entered} kept, {report.corrected} of them corrected by their user")
    for reason, number in count.left_out.items():
        say(f"  {number:7} left out: {reason}")
    say(f"  pairs {report.pairs or 'none'}, ratings {report.rated or 'none'}")
    rows = [
        [
            found.rubric,
            found.source,
            str(found.n),
            "–" if found.kappa is None else f"{found.kappa:.2f}",
            "" if found.interval is None else f"{found.interval[0]:.2f} – {found.interval[1]:.2f}",
        ]
        for found in report.agreement
    ]
    table("Agreement of judge and people (Cohen's kappa)", ["rubric", "people", ">n", ">kappa", "95 % interval"], rows)
    use = report.use
    if use is not None:
        say(f"{use.model}, rubric {use.rubric}: {use.asked} asked about, {use.cached} known, {use.tokens} tokens")
        say(f"  {use.inconsistent} inconsistent, {use.failed} failed, {use.unfinished} unfinished {use.why}")
        if use.unfinished or use.failed:
            say(f"  the next `pocketloop curate {adapter}` goes on with them")
    if report.disagreements:
        say(f"{report.disagreements} disagreements; look at them: pocketloop labels disagreements {adapter}")


def import_labels(
    file: Annotated[Path, typer.Argument(help="JSON lines {event_id or example_id, rubric, verdict, rater}.")],
    as_json: AsJson = False,
) -> None:
    """Keep people's verdicts for every later run; importing a file again changes nothing."""
    from pocketloop.labeling.human import import_verdicts

    given, new = import_verdicts(Home(), file)
    if as_json:
        emit({"file": str(file), "verdicts": given, "new": new})
        return
    say(f"{file}: {given} verdicts, {new} new or changed; the next `pocketloop curate` counts them")


def disagreements(
    adapter: Adapter,
    open_only: Annotated[bool, typer.Option("--open", help="Only those on which nobody has spoken.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the answers that wait in MLflow for a person's word: judge and user differ, or drawn at random."""
    from pocketloop.registry.feedback import experiment_of, queue_of, waiting

    rows = [row for row in waiting(Home(), adapter) if not (open_only and row["people"])]
    if as_json:
        emit(rows)
        return
    shown = [
        [row["event"], row["why"], row["judge"] or "(not shown)", row["reason"], row["thumb"], " ".join(row["people"])]
        for row in rows
    ]
    table(f"{len(rows)} answers before people", ["event", "why", "judge", "reason", "user", "people"], shown)
    queues = sorted({queue_of(adapter, row["rubric"]) for row in rows})
    if queues:
        say(f"Answer them in MLflow (`pocketloop ui`): experiment {experiment_of(adapter)}, review queue {queues[0]!r}")
