"""The page of a scrubbing that a person opens: counts, figures and reasons, and not a word of what was scrubbed."""

from pathlib import Path
from typing import TYPE_CHECKING

from pocketloop.contracts.figures import FAINT, INK, new_figure, plain, svg
from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.pages import render_template
from pocketloop.contracts.reports import Estimate, LeakAudit, ScrubReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = "scrub.html"
_BAR, _RECALL, _PRECISION = "#1d4ed8", "#1d4ed8", "#b45309"

REASONS = {
    "unclear residue": "something in it looks like personal data, but of which kind is not sure",
    "a found value survived": "a value that was found in the same person's records still stood in it",
    "malformed event": "it is no interaction/1 event",
    "not a JSON object": "the line is no JSON object",
}


def write_page(path: Path, report: ScrubReport) -> None:
    """Write the page to `path`; it needs nothing beside it."""
    html = render_page(report)
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render_page(report: ScrubReport) -> str:
    """The page as HTML text: made of the report's numbers alone, so it cannot quote anybody."""
    from markupsafe import Markup

    audit = report.audit
    # Figures are drawn here from numbers and names of types; matplotlib escapes the names.
    figures = {
        "found": Markup(found_figure(report.found)) if report.found else "",  # noqa: S704
        "audit": Markup(audit_figure(audit)) if audit and audit.types else "",  # noqa: S704
    }
    return render_template(Path(__file__).parent / "scrub.html.j2", report=report, figures=figures, reasons=REASONS)


def found_figure(found: dict[str, int]) -> str:
    """How many values of each type were replaced, as SVG text."""
    kinds = sorted(found, key=lambda kind: found[kind])
    figure = new_figure(8.6, 0.7 + 0.27 * len(kinds))
    axes = figure.add_subplot()
    plain(axes, grid="x")
    bars = axes.barh(kinds, [found[kind] for kind in kinds], color=_BAR, height=0.62)
    axes.bar_label(bars, labels=[f"{found[kind]:,}" for kind in kinds], padding=4, color=FAINT, fontsize=9)
    axes.set_xlim(right=max(found.values()) * 1.12)
    return svg(figure)


def audit_figure(audit: LeakAudit) -> str:
    """Recall and precision by type with their 95 % intervals, as SVG text."""
    types = sorted(audit.types, key=lambda row: row.recall.value if row.labelled else 2.0, reverse=True)
    figure = new_figure(8.6, 0.9 + 0.34 * len(types))
    axes = figure.add_subplot()
    plain(axes, grid="x")
    _intervals(axes, [(place - 0.13, row.recall) for place, row in enumerate(types)], _RECALL, "recall")
    _intervals(axes, [(place + 0.13, row.precision) for place, row in enumerate(types)], _PRECISION, "precision")
    axes.set_yticks(range(len(types)), [row.type for row in types])
    lowest = min((e.low for row in types for e in (row.recall, row.precision) if e.n), default=0.0)
    axes.set_xlim(max(0.0, min(0.9, lowest - 0.02)), 1.004)
    axes.set_ylim(len(types) - 0.4, -0.6)
    axes.legend(frameon=False, labelcolor=INK, loc="lower left", ncols=2, bbox_to_anchor=(0, 1.0))
    return svg(figure)


def _intervals(axes: "Axes", rows: list[tuple[float, Estimate]], colour: str, name: str) -> None:
    known = [(place, estimate) for place, estimate in rows if estimate.n]
    places = [place for place, _ in known]
    axes.hlines(places, [e.low for _, e in known], [e.high for _, e in known], color=colour, linewidth=1.6)
    axes.plot([e.value for _, e in known], places, "o", color=colour, markersize=4.5, label=name)
