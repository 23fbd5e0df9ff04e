"""The look of figures in reports and rollout pages, as SVG text to set into a page."""

import io
import re
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
_MARGIN, _TITLE = 12.0, 26.0
"""Of a titled sheet, in points."""


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


def titled(figure: str, title: str) -> str:
    """A figure's SVG text on a white sheet under a title: readable in print, and where the page around it is dark.

    Raises:
        ValueError: it is not the text of a figure.
    """
    opening = re.match(r"<svg\b[^>]*>", figure)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening[0]) if opening else None
    if opening is None or box is None:
        raise ValueError("not the text of a figure: it does not begin with <svg and a viewBox")
    width, height = float(box[1]), float(box[2])
    across, top = max(width, 8.8 * len(title)) + 2 * _MARGIN, _TITLE + _MARGIN
    down = top + height + _MARGIN
    place = f'x="{_MARGIN:g}" y="{top:g}" width="{width:g}" height="{height:g}"'
    inner = "<svg " + place + re.sub(r'\s(?:width|height)="[^"]*"', "", opening[0])[4:]
    head = f'font-family="sans-serif" font-size="15" font-weight="600" fill="{INK}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{across:g}" height="{down:g}" '
        f'viewBox="0 0 {across:g} {down:g}" role="img"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="{_MARGIN:g}" y="{_TITLE:g}" {head}>'
        f"{escape(title)}</text>{inner}{figure[opening.end() :]}</svg>"
    )
