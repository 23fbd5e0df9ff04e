"""The findings of `methods.py` as a page of Markdown and a figure."""

from collections.abc import Sequence
from typing import Any

from methods_findings import Claim, Finding, Row

from pocketloop.contracts.figures import FAINT, INK, new_figure, plain, svg
from pocketloop.contracts.reports import Estimate

_COLOURS = {"holds": "#15803d", "open": "#b45309", "does not hold": "#b91c1c"}
_SIGNS = {"holds": "✓ holds", "open": "? open", "does not hold": "✗ does not hold"}


def page(findings: Sequence[Finding], missing: dict[str, str], base: str) -> str:
    """The page: every claim in one table, then each experiment; of `missing` ones, what is known."""
    trainings = {(row.name, row.seconds or 0) for finding in findings for row in finding.rows}
    minutes = sum(seconds for _, seconds in trainings) / 60
    lines = [
        "# What each training method does",
        "",
        f"Measured on the embedded base `{base}` with generated requests, held out: templates and values that nothing",
        "learns from. `make methods` rebuilds this page. Every training goes through `train_adapter`, with what a",
        f"recipe's `train` section can say, on one thread: {minutes:.0f} processor minutes in all. Intervals",
        "are 95 %: Wilson's for shares, bootstraps otherwise, paired for differences. A claim holds when the whole",
        "interval of its difference lies above zero, or above the loss that is said to count as none; it does not hold",
        "when the whole interval lies below; else it stays open at this n. A training that was interrupted shows the",
        "processor seconds of its last part alone.",
        "",
        "![Differences with their intervals](methods.svg)",
        "",
        "| claim | difference | 95 % interval | n | |",
        "|---|---:|---:|---:|---|",
        *(_claim(claim) for finding in findings for claim in finding.claims),
        "",
    ]
    for finding in findings:
        lines += _section(finding)
    if missing:
        lines += ["## Not measured in this run", "", *(f"- {name}. {known}" for name, known in missing.items()), ""]
    return "\n".join(lines)


def _claim(claim: Claim) -> str:
    interval = f"{claim.low:+.3f} to {claim.high:+.3f}"
    return f"| {claim.text} | {claim.difference:+.3f} | {interval} | {claim.n} | {_SIGNS[claim.verdict]} |"


def _section(finding: Finding) -> list[str]:
    columns = list(dict.fromkeys(name for row in finding.rows for name in row.figures))
    lines = [
        f"## {finding.title}",
        "",
        finding.setting,
        "",
        "| | " + " | ".join(columns) + " | CPU seconds |",
        "|---|" + "---:|" * (len(columns) + 1),
        *(_row(row, columns) for row in finding.rows),
        "",
    ]
    for title, table in finding.tables.items():
        lines += [f"{title}: " + ", ".join(f"{name} {value:.1f}" for name, value in table.items()) + ".", ""]
    if finding.remark:
        lines += [finding.remark, ""]
    return lines


def _row(row: Row, columns: list[str]) -> str:
    seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
    return f"| {row.name} | " + " | ".join(_figure(row.figures.get(name)) for name in columns) + f" | {seconds} |"


def _figure(value: Estimate | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, Estimate):
        return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f}; n = {value.n})"
    return f"{value:,.0f}"


def figure(findings: Sequence[Finding]) -> str:
    """Every claim's difference with its interval, as SVG text."""
    claims = [claim for finding in findings for claim in finding.claims]
    drawing = new_figure(9.5, 0.9 + 0.3 * len(claims))
    axes: Any = drawing.add_subplot()
    for place, claim in enumerate(reversed(claims)):
        colour = _COLOURS[claim.verdict]
        axes.plot([claim.low, claim.high], [place, place], color=colour, linewidth=2, alpha=0.5)
        axes.plot(claim.difference, place, "o", color=colour, markersize=5)
        if claim.margin:
            axes.plot([-claim.margin] * 2, [place - 0.35, place + 0.35], color=FAINT, linewidth=1, linestyle=":")
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(claims)), [claim.text for claim in reversed(claims)])
    axes.set_xlabel("difference, 95 % interval; dotted: the loss that counts as none", fontsize=9, color=INK)
    axes.set_ylim(-0.7, len(claims) - 0.3)
    plain(axes, "x")
    return svg(drawing)
