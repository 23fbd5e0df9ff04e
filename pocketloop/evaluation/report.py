"""The report that a person opens: one HTML file that needs nothing beside it."""

from pathlib import Path

from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.pages import render_template
from pocketloop.evaluation.findings import MODELS, Findings, class_rows
from pocketloop.evaluation.plots import COLOURS, confusion_figure, loss_figure, scores_figure
from pocketloop.evaluation.suite import top_confusions

_MOST_CONFUSIONS = 12
_MOST_FORGOTTEN = 12


def write_report(path: Path, findings: Findings) -> None:
    """Write the candidate's report to `path`: scores, gates, classes, training, safety, parity, data and files.

    It holds numbers, digests, labels and function names, and no user's words.
    """
    html = render_report(findings)
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render_report(findings: Findings) -> str:
    """The report as HTML text."""
    from markupsafe import Markup

    confusion = findings.evaluation.confusion
    # Every figure is drawn here from numbers and known labels; matplotlib escapes the labels.
    figures = {
        "scores": {name: Markup(scores_figure(results)) for name, results in findings.sets.items()},  # noqa: S704
        "loss": Markup(loss_figure(findings.training)),  # noqa: S704
        "confusion": Markup(confusion_figure(confusion)) if confusion else "",  # noqa: S704
    }
    return render_template(
        Path(__file__).parent / "templates" / "report.html",
        findings=findings,
        figures=figures,
        classes=class_rows(findings),
        confusions=top_confusions(confusion, _MOST_CONFUSIONS),
        most_forgotten=_MOST_FORGOTTEN,
        models=MODELS,
        colours=COLOURS,
        signs={"pass": "✓ pass", "fail": "✗ fail", "inconclusive": "? inconclusive"},
    )
