"""What is registered: `trace`, and `evaluate` on somebody's own data."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.cli.review import Version, split_version
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: pocketloop trace functions@2 --events")(trace)
    app.command(epilog="Example: pocketloop evaluate functions --data mine.jsonl --json")(evaluate)


def trace(
    version: Version,
    events: Annotated[bool, typer.Option("--events", help="List every event id.")] = False,
    as_json: AsJson = False,
) -> None:
    """Walk from a version back to its gates, dataset release, scrub report and event ids."""
    from pocketloop.registry.lineage import trace as walk

    found = walk(Home(), *split_version(version))
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
    for stage in release.stages:
        reasons = ", ".join(f"{n} {reason}" for reason, n in stage.left_out.items())
        left_out = f", left out: {reasons}" if reasons else ""
        say(f"   ├─ {stage.stage:8} {stage.kept} of {stage.entered} records{left_out}")
    say(f"   ├─ scrubbed {sum(release.scrub.found.values())} replaced, {release.scrub.caught} withheld")
    for agreed in release.label.agreement:
        kappa = "cannot be told" if agreed.kappa is None else f"{agreed.kappa:.2f}"
        say(f"   ├─ judge    {release.label.judge}, kappa {kappa} on {agreed.n} answers ({agreed.source})")
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
        with fetch_bundle(Home(), candidate(Home(), *split_version(adapter))) as folder:
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
