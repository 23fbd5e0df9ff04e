"""The comparison of the two shapes of assistant as one HTML page."""

from pathlib import Path

from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.pages import render_template
from pocketloop.contracts.reports import SetResult
from pocketloop.evaluation.plots import scores_figure
from pocketloop.evaluation.shapes import OUT_OF_SCOPE, ShapesReport


def write_shapes_page(path: Path, report: ShapesReport) -> None:
    """Write the page to `path`; it holds numbers and names, and no message."""
    from markupsafe import Markup

    agents = [agent for agent in report.messages if agent != OUT_OF_SCOPE]
    drawn = [
        SetResult(
            model=variant.variant,
            set="shapes",
            metrics={agent: variant.agents[agent].right for agent in agents},
            seconds=0,
            tokens=0,
        )
        for variant in report.variants
    ]
    html = render_template(
        Path(__file__).parent / "templates" / "shapes.html",
        report=report,
        agents=agents,
        out_of_scope=OUT_OF_SCOPE,
        # Drawn here from numbers and names of agents, which matplotlib escapes.
        figure=Markup(scores_figure(drawn)),  # noqa: S704
    )
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
