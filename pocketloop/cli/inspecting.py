"""`pocketloop data inspect ADAPTER` and `pocketloop data diff A B`: dataset releases in the terminal."""

from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.contracts.home import Home

if TYPE_CHECKING:
    from pocketloop.contracts.reports import DatasetRelease, Estimate
    from pocketloop.data.comparing import ReleaseDiff
    from pocketloop.data.profile import Profile

_MOST_ROWS = 30


def inspect_release(name: str, as_json: bool) -> None:
    """Show one release: `name` is an adapter (its newest), `ADAPTER~1` (the one before), or a digest's beginning."""
    from pocketloop.data.comparing import find_release
    from pocketloop.data.release import parents, read_profile, read_release

    folder = find_release(Home(), name)
    release, profile = read_release(folder), read_profile(folder)
    chain = parents(Home(), release)
    if as_json:
        emit(
            {
                "folder": str(folder),
                "parents": chain,
                "release": release.model_dump(mode="json"),
                "profile": profile.model_dump(mode="json"),
            }
        )
        return
    say(f"[bold]{release.adapter}[/bold]  release {release.digest[:16]}, task {release.task}")
    say(f"  policies  {', '.join(release.policies) or 'none (no events)'}")
    say(f"  before it {' ← '.join(digest[:16] for digest in chain) or 'none: the first release'}")
    say()
    _funnel(release)
    _splits(release)
    _answers(profile)
    _scrubbing(release)
    _labels(release)
    drift = release.drift
    against = f"{drift.share:.0%} of the columns against {drift.reference[:16]}" if drift.reference else "no parent"
    say(f"drift {drift.verdict}: {against}")
    say(f"card  {folder / 'card.html'}")
    say(f"data  {folder / 'splits'}")
    if release.parent:
        say(f"next  pocketloop data diff {release.adapter}~1 {release.adapter}")


def diff(
    before: Annotated[
        str,
        typer.Argument(
            help="ADAPTER (its newest release), ADAPTER~1 (one before), or a digest.", autocompletion=adapter_names
        ),
    ],
    after: Annotated[
        str, typer.Argument(help="What to compare with it, named in the same way.", autocompletion=adapter_names)
    ],
    as_json: AsJson = False,
) -> None:
    """Say what changed from one dataset release to another: counts, answers, records, drift, policies, versions."""
    from pocketloop.data.comparing import compare, find_release

    found = compare(find_release(Home(), before), find_release(Home(), after))
    if as_json:
        emit(found)
        return
    if found.before == found.after:
        say(f"the same release: {found.after[:16]}")
        return
    say(f"from {found.adapters[0]} {found.before[:16]} to {found.adapters[1]} {found.after[:16]}")
    say()
    _counts(found)
    _changed_answers(found)
    _changed_columns(found)
    for name, (old, new) in found.versions.items():
        say(f"{name:9} {new}" if old == new else f"{name:9} {old} → {new}")
    policies = [f"+{policy}" for policy in found.policies_added] + [f"-{policy}" for policy in found.policies_removed]
    say(f"policies  {' '.join(policies) or 'the same'}")


def _funnel(release: "DatasetRelease") -> None:
    rows = []
    for stage in release.stages:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in stage.left_out.items())
        rows.append([stage.stage, f"{stage.entered:,}", f"{stage.kept:,}", reasons])
    table("From the log to the splits", ["stage", ">records", ">kept", "left out"], rows)


def _splits(release: "DatasetRelease") -> None:
    counts = (release.splits, release.groups, release.pairs, release.rated)
    rows = [[name, *(f"{count.get(name, 0):,}" for count in counts)] for name in release.splits]
    table("Splits", ["split", ">examples", ">groups", ">pairs", ">rated"], rows)


def _answers(profile: "Profile") -> None:
    total = sum(sum(counts.values()) for counts in profile.labels.values())
    rows = [
        [label, f"{sum(counts.values()):,}", f"{sum(counts.values()) / total:.1%}"]
        for label, counts in list(profile.labels.items())[:_MOST_ROWS]
    ]
    more = len(profile.labels) - len(rows)
    table("Answers" + (f" ({more} more)" if more else ""), ["answer", ">examples", ">share"], rows)


def _scrubbing(release: "DatasetRelease") -> None:
    scrub = release.scrub
    found = ", ".join(f"{count:,} {kind}" for kind, count in sorted(scrub.found.items()) if count) or "nothing"
    if scrub.audit:
        rows = [
            [row.type, f"{row.labelled:,}", _interval(row.recall), _interval(row.precision)]
            for row in scrub.audit.types
        ]
        table(
            f"Scrubber on {scrub.audit.rows:,} labelled held-out texts",
            ["type", ">labelled", "recall", "precision"],
            rows,
        )
    say(f"scrubbed {found}; {scrub.caught} survived and were withheld")


def _interval(found: "Estimate") -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _labels(release: "DatasetRelease") -> None:
    say(f"judge {release.label.judge}, {release.label.corrected:,} answers corrected by people")
    for agreed in release.label.agreement:
        kappa = "cannot be told" if agreed.kappa is None else f"{agreed.kappa:.2f}"
        interval = f" ({agreed.interval[0]:.2f} to {agreed.interval[1]:.2f})" if agreed.interval else ""
        say(f"  kappa {kappa}{interval} on {agreed.n:,} answers: {agreed.rubric}, {agreed.source}")
    for guard in release.select.guarded:
        say(f"  [yellow]{guard.guard}[/yellow] of {guard.label}: {guard.value:.2f} over {guard.bound:.2f}, "
            f"{guard.examples:,} examples of {guard.devices:,} devices left out")  # fmt: skip


def _counts(found: "ReleaseDiff") -> None:
    rows = [_change(name, pair) for name, pair in found.splits.items()]
    rows += [_change("preference pairs", found.pairs), _change("rated answers", found.rated)]
    rows += [_change(f"kept by {stage}", pair) for stage, pair in found.stages.items()]
    rows += [_change(reason, pair) for reason, pair in found.left_out.items() if pair[0] != pair[1]]
    rows += [_change(f"replaced {kind}", pair) for kind, pair in found.found.items() if pair[0] != pair[1]]
    table("Counts", ["what", ">before", ">after", ">change"], rows)
    for name, turnover in (("examples", found.examples), ("groups", found.groups)):
        say(f"{name:9} {turnover.added:,} added, {turnover.removed:,} removed, {turnover.kept:,} in both")
    if found.moved:
        say(f"          {found.moved:,} examples are in another split than before")


def _changed_answers(found: "ReleaseDiff") -> None:
    changed = sorted(
        ((label, pair) for label, pair in found.labels.items() if pair[0] != pair[1]),
        key=lambda item: -abs(item[1][1] - item[1][0]),
    )
    if changed:
        rows = [_change(label, pair) for label, pair in changed[:_MOST_ROWS]]
        more = len(changed) - len(rows)
        table("Answers" + (f" ({more} more)" if more else ""), ["answer", ">before", ">after", ">change"], rows)


def _changed_columns(found: "ReleaseDiff") -> None:
    rows = []
    for name, column in found.columns.items():
        arrow = "▲" if column.after > column.before else "▼" if column.after < column.before else "="
        psi = "–" if column.psi is None else f"{column.psi:.3f}"
        rows.append([name, f"{column.before:.4g}", arrow, f"{column.after:.4g}", psi])
    if rows:
        table("Descriptors", ["mean of", ">before", "", ">after", ">stability index"], rows)


def _change(name: str, pair: tuple[int, int]) -> list[str]:
    before, after = pair
    return [name, f"{before:,}", f"{after:,}", f"{after - before:+,}" if after != before else "="]
