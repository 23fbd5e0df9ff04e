"""`pocketloop gates`: verdicts, computed again from the outcomes that were kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, complain, emit, say
from pocketloop.cli.review import split_version
from pocketloop.contracts.errors import GateFailed, PocketloopError, ReviewRefused
from pocketloop.contracts.home import Home

if TYPE_CHECKING:
    from pocketloop.contracts.reports import GateResult, SliceVerdict
    from pocketloop.evaluation.explain import Explanation

_SIGNS = {
    "pass": "[green]✓ pass[/green]",
    "fail": "[red]✗ fail[/red]",
    "inconclusive": "[yellow]? inconclusive[/yellow]",
}


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Gates and what their verdicts follow from.", no_args_is_help=True)
    group.command(epilog="Example: pocketloop gates explain functions@2")(explain)
    app.add_typer(group, name="gates")


def explain(
    version: Annotated[
        str,
        typer.Argument(
            help="ADAPTER@VERSION, ADAPTER (the newest), or the folder of a bundle.", autocompletion=adapter_names
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Compute every gate's verdict again from the stored per-item outcomes, and say what it rests on.

    The exit status is 3 where the recorded verdict does not follow from its evidence, or the evidence was changed.
    """
    name, found = _explained(version)
    if as_json:
        emit(
            {
                "version": name,
                "stands": found.stands,
                "problems": found.problems,
                "recorded": found.recorded.model_dump(mode="json"),
                "recomputed": found.recomputed.model_dump(mode="json") if found.recomputed else None,
            }
        )
    else:
        _show(name, found)
    if not found.stands:
        raise GateFailed(f"{name}: the recorded verdict does not stand: {found.problems[0]}")


def _explained(version: str) -> "tuple[str, Explanation]":
    from dataclasses import replace

    from pocketloop.evaluation.explain import explain as recompute
    from pocketloop.registry.mlflow_store import candidate, check_bundle, fetch_unchecked
    from pocketloop.registry.review import check_signature

    if Path(version).is_dir():
        return version, recompute(Path(version))
    home = Home()
    stored = candidate(home, *split_version(version))
    with fetch_unchecked(home, stored) as folder:
        found = recompute(folder)
        problems = list(found.problems)
        for check in (lambda: check_bundle(stored, folder), lambda: check_signature(home, stored)):
            try:
                check()
            except ReviewRefused as error:
                problems.append(str(error))
            except PocketloopError as error:
                complain(f"not checked: {error}")
        if stored.verdict != found.recorded.verdict:
            problems.append(f"its tag says {stored.verdict}, its gates {found.recorded.verdict}")
    return f"{stored.adapter}@{stored.version}", replace(found, problems=problems)


def _show(name: str, found: "Explanation") -> None:
    from rich.markup import escape

    decision = found.recomputed or found.recorded
    say(f"[bold]{name}[/bold]  recorded {_SIGNS[found.recorded.verdict]}" + _recomputed(found))
    say(f"evidence  {len(found.recorded.evidence)} files, each with its sha256 in gates.json")
    for gate in decision.gates:
        say()
        say(
            f"{_SIGNS[gate.verdict]}  [bold]{escape(gate.gate)}[/bold]"
            + (f"  [dim]{gate.key}[/dim]" if gate.key else "")
        )
        for label, text in _lines(gate):
            say(f"    {label:11} {escape(text)}")
    for warning in decision.warnings:
        say(f"\n[yellow]![/yellow] {escape(warning)}")
    say()
    for problem in found.problems:
        say(f"[bold red]does not stand[/bold red]: {escape(problem)}")
    if found.stands:
        say("computed again from the stored outcomes, every gate is what was recorded")


def _recomputed(found: "Explanation") -> str:
    return f", recomputed {_SIGNS[found.recomputed.verdict]}" if found.recomputed else ""


def _lines(gate: "GateResult") -> list[tuple[str, str]]:
    lines = []
    if gate.against:
        lines.append(("against", f"{gate.against}, {gate.n:,} items answered by both"))
    elif gate.n:
        lines.append(("items", f"{gate.n:,}"))
    found = gate.measured
    if found is not None:
        level = f"{gate.confidence:.0%}" if gate.confidence else ""
        sides = "95 %" if gate.test == "floor" else f"one-sided {level}"
        lines.append(("observed", f"{found.observed:+.4f}, {sides} bounds {found.low:+.4f} and {found.high:+.4f}"))
        if gate.against:
            lines.append(
                ("discordant", f"{found.wins + found.losses:,}: better on {found.wins:,}, worse on {found.losses:,}")
            )
    elif gate.observed is not None:
        lines.append(("observed", f"{gate.observed:.4g}"))
    if gate.test:
        p = f", p = {found.p:.3g}, against it p = {found.p_against:.3g}" if found and found.p is not None else ""
        lines.append(("test", gate.test + p))
    if gate.bound is not None:
        lines.append(("bound", f"{gate.bound:g}"))
    lines += [("slice", _slice(one)) for one in gate.slices]
    lines.append(("why", gate.detail))
    if gate.change:
        lines.append(("would change", gate.change))
    return lines


def _slice(one: "SliceVerdict") -> str:
    found = one.measured
    small = ", too few to be waited for" if one.small else ""
    return (
        f"{one.verdict:12} {one.name}: {found.observed:+.3f} ({found.low:+.3f} to {found.high:+.3f}) on {found.n:,}, "
        f"corrected p of being bad {found.p_against or 0:.2g}{small}"
    )
