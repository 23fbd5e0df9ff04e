"""What is registered: `trace`."""

from typing import Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say
from pocketloop.cli.review import Version, split_version
from pocketloop.contracts.home import Home


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: pocketloop trace functions@2 --events")(trace)


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
