"""The report that a person opens: one HTML file that needs nothing beside it, on a phone as well."""

from pathlib import Path

from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.pages import render_template
from pocketloop.evaluation.findings import MODELS, Findings, class_rows, slice_rows
from pocketloop.evaluation.intervals import interval_svg
from pocketloop.evaluation.plots import (
    COLOURS,
    NARROW,
    WIDE,
    confusion_figure,
    fallback_figure,
    loss_figure,
    reliability_figure,
    scores_figure,
)
from pocketloop.evaluation.suite import top_confusions

_RANK = {"fail": 0, "inconclusive": 1, "pass": 2}
_MOST_CONFUSIONS = 12
_MOST_CLASSES = 12
_MOST_FORGOTTEN = 12
_MOST_SLICES = 12


def write_report(path: Path, findings: Findings) -> None:
    """Write the candidate's report to `path`: scores, gates, slices, classes, safety, data, training and files.

    It holds numbers, digests, labels and function names, and of words only those of scrubbed imported examples.
    """
    html = render_report(findings)
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render_report(findings: Findings) -> str:
    """The report as HTML text."""
    from markupsafe import Markup

    confusion, router = findings.evaluation.confusion, findings.evaluation.router
    widths = {"wide": WIDE, "narrow": NARROW}
    # Every figure is drawn here from numbers and known labels; matplotlib escapes the labels.
    figures = {
        "scores": {
            name: {kind: Markup(scores_figure(results, width)) for kind, width in widths.items()}  # noqa: S704
            for name, results in findings.sets.items()
        },
        "loss": {kind: Markup(loss_figure(findings.training, width)) for kind, width in widths.items()},  # noqa: S704
        "confusion": Markup(confusion_figure(confusion)) if confusion else "",  # noqa: S704
        "reliability": Markup(reliability_figure(router)) if router else "",  # noqa: S704
        "fallback": Markup(fallback_figure(router)) if router else "",  # noqa: S704
    }
    gates = [(gate, Markup(interval_svg(gate))) for gate in findings.decision.gates]  # noqa: S704
    return render_template(
        Path(__file__).parent / "templates" / "report.html",
        findings=findings,
        figures=figures,
        gates=sorted(gates, key=lambda pair: _RANK[pair[0].verdict]),
        classes=class_rows(findings),
        most_classes=_MOST_CLASSES,
        slices=slice_rows(findings)[:_MOST_SLICES],
        confusions=top_confusions(confusion, _MOST_CONFUSIONS),
        most_forgotten=_MOST_FORGOTTEN,
        models=MODELS,
        colours=COLOURS,
        signs={"pass": "✓ pass", "fail": "✗ fail", "inconclusive": "? inconclusive"},
    )
