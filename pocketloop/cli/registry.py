"""What is registered: `review`, `trace`, and `evaluate` on somebody's own data."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.contracts.home import Home

Version = Annotated[str, typer.Argument(help="ADAPTER or ADAPTER@VERSION; without a version, the newest.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Candidates that wait for a reviewer.", no_args_is_help=True)
    group.command("list", epilog="Example: pocketloop review list --json")(list_candidates)
    group.command("show", epilog="Example: pocketloop review show functions@2")(show)
    app.add_typer(group, name="review")
    app.command(epilog="Example: pocketloop trace functions@2 --events")(trace)
    app.command(epilog="Example: pocketloop evaluate functions --data mine.jsonl --json")(evaluate)


def list_candidates(
    adapter: Annotated[str | None, typer.Argument(help="One adapter; without it, all.")] = None, as_json: AsJson = False
) -> None:
    """List the candidates, newest first, with their verdicts."""
    from pocketloop.registry.mlflow_store import candidates

    found = candidates(Home(), adapter)
    if as_json:
        emit([item.model_dump(mode="json") for item in found])
        return
    rows = [
        [f"{c.adapter}@{c.version}", c.verdict, _metrics(c.metrics), c.dataset_digest[:12], c.created] for c in found
    ]
    table("", ["candidate", "verdict", "metrics on held-out data", "dataset", "registered"], rows)


def show(version: Version, as_json: AsJson = False) -> None:
    """Show a candidate's card: scores beside base and champion, gates, safety, files."""
    from pocketloop.registry.mlflow_store import candidate, fetch_bundle

    adapter, _, number = version.partition("@")
    found = candidate(Home(), adapter, number or None)
    if as_json:
        emit(found)
        return
    from rich.markdown import Markdown

    from pocketloop.cli.console import console

    with fetch_bundle(Home(), found) as folder:
        console().print(Markdown((folder / "card.md").read_text(encoding="utf-8")))


def trace(
    version: Version,
    events: Annotated[bool, typer.Option("--events", help="List every event id.")] = False,
    as_json: AsJson = False,
) -> None:
    """Walk from a version back to its gates, dataset release, scrub report and event ids."""
    from pocketloop.registry.lineage import trace as walk

    adapter, _, number = version.partition("@")
    found = walk(Home(), adapter, number or None)
    if as_json:
        emit(found)
        return
    candidate, release = found.candidate, found.release
    name = f"{candidate.adapter}@{candidate.version}"
    say(f"[bold]{name}[/bold]  verdict {candidate.verdict}, bundle {candidate.digest[:12]}")
    say(f"├─ recipe   {candidate.recipe_digest[:12]}")
    say(f"├─ base     {found.bundle.base} {candidate.base_digest[:12]}")
    for name, digest in found.bundle.files.items():
        say(f"├─ file     {digest[:12]}  {name}")
    for gate in found.decision.gates:
        say(f"├─ gate     {gate.verdict:12} {gate.gate}: {gate.detail}")
    say(
        f"└─ dataset  {release.digest[:12]}  {release.splits}, consent policies {', '.join(release.policies) or 'none'}"
    )
    say(f"   ├─ scrub   {release.scrub.records} records, replaced {release.scrub.found}, {release.scrub.leaks} leaks")
    say(f"   ├─ label   {release.label.judge}: {release.label.examples} kept, rejected {release.label.rejected}")
    for source, count in found.example_files.items():
        say(f"   ├─ file    {count} examples of {source}")
    say(f"   └─ events  {len(found.event_ids)} of the log" + ("" if events else " (--events lists them)"))
    if events:
        for event_id in found.event_ids:
            print(event_id)


def evaluate(
    adapter: Annotated[str, typer.Argument(help="ADAPTER, ADAPTER@VERSION, or the folder of a bundle.")],
    data: Annotated[str, typer.Option(help="Example file (.jsonl, .jsonl.gz) or demo:// address.")],
    limit: Annotated[int | None, typer.Option(help="Use the first N examples only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score an adapter's exported files, as a phone runs them, on somebody's data."""
    from pocketloop.cli.evaluating import evaluate_bundle
    from pocketloop.registry.mlflow_store import candidate, fetch_bundle

    if Path(adapter).is_dir():
        result, refused = evaluate_bundle(Home(), Path(adapter), data, limit)
    else:
        name, _, number = adapter.partition("@")
        with fetch_bundle(Home(), candidate(Home(), name, number or None)) as folder:
            result, refused = evaluate_bundle(Home(), folder, data, limit)
    metrics = {name: estimate.value for name, estimate in result.metrics.items()}
    if as_json:
        intervals = {name: [estimate.low, estimate.high] for name, estimate in result.metrics.items()}
        n = next(iter(result.metrics.values())).n
        emit({"n": n, **metrics, "intervals": intervals, "refused": refused, "seconds": round(result.seconds, 2)})
        return
    rows = [[name, f"{e.value:.3f}", f"{e.low:.3f} – {e.high:.3f}", str(e.n)] for name, e in result.metrics.items()]
    table(f"{adapter} on {data}", ["metric", ">value", "95 % interval", ">n"], rows)
    if refused:
        say(f"{refused} lines of the file could not be used")


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in sorted(metrics.items()))
