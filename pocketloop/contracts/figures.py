"""The look of figures in reports and rollout pages, as SVG text to set into a page."""

import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain(axes: "Axes", grid: Literal["x", "y"] | None) -> None:
    """Take away what carries no information: spines, ticks, and the grid lines of the other axis."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)


def svg(figure: "Figure") -> str:
    """The figure as text; the same numbers give the same bytes."""
    import matplotlib as mpl

    settings = {"svg.fonttype": "none", "svg.hashsalt": "pocketloop", "font.family": "sans-serif"}
    out = io.StringIO()
    with mpl.rc_context(settings):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
