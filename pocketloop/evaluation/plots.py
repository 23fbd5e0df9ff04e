"""Figures of the report, as SVG text to set into a page. The same numbers give the same bytes."""

from collections.abc import Sequence
from typing import Any

from pocketloop.contracts.figures import FAINT, INK, new_figure, plain, svg
from pocketloop.contracts.reports import Measured, RouterReport, SetResult, SliceVerdict, TrainReport

COLOURS = {"adapter": "#1d4ed8", "transformers": "#7aa5f5", "champion": "#d97706", "base": "#8a94a6"}
_MOST_CLASSES = 16

_LOSSES: dict[str, dict[str, Any]] = {
    "loss": {"color": COLOURS["transformers"], "linewidth": 1.4, "label": "training"},
    "validation_loss": {
        "color": COLOURS["adapter"],
        "linewidth": 1.6,
        "marker": "o",
        "markersize": 4.5,
        "label": "held out",
    },
}


WIDE, NARROW = 10.0, 4.6
"""Inches: for a window, and for a phone."""


def scores_figure(results: list[SetResult], width: float = WIDE) -> str:
    """One row for each metric and model: the estimate as a dot, its 95 % interval as a line."""
    metrics = list(results[0].metrics)
    rows = [(metric, result) for metric in metrics for result in results if metric in result.metrics]
    figure = new_figure(width, 0.7 + 0.24 * len(rows) + 0.25 * len(metrics))
    axes = figure.add_subplot()
    position, ticks = 0.0, []
    for metric in metrics:
        top = position
        for _, result in (row for row in rows if row[0] == metric):
            found = result.metrics[metric]
            colour = COLOURS.get(result.model, FAINT)
            axes.plot([found.low, found.high], [position, position], color=colour, linewidth=2.4, alpha=0.45)
            axes.plot([found.value], [position], "o", color=colour, markersize=6)
            beside = found.high + 0.012 if found.high < 0.72 else found.low - 0.012
            side = "left" if found.high < 0.72 else "right"
            axes.text(beside, position, result.model, color=colour, ha=side, va="center", fontsize=8.5)
            position += 1
        ticks.append((top + position - 1) / 2)
        position += 0.9
    axes.set_yticks(ticks, metrics if width == WIDE else [metric.replace("_", "\n") for metric in metrics])
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_xlabel("score, with its 95 % interval", color=FAINT)
    plain(axes, grid="x")
    return svg(figure)


def paired_figure(found: Measured, both_right: int, other: str) -> str:
    """The items of a paired comparison as one bar: right by both, by one of the two alone, and by neither.

    `both_right` counts the items that both get fully right; what remains beside wins and losses neither does.
    """
    neither = found.n - found.wins - found.losses - both_right
    parts = [
        (both_right, "both right", "#cbd5e1"),
        (found.wins, "only the candidate", COLOURS["adapter"]),
        (found.losses, f"only the {other}", COLOURS["champion"]),
        (neither, "neither", "#f1f5f9"),
    ]
    figure = new_figure(WIDE, 1.25)
    axes = figure.add_subplot()
    left = 0
    for count, name, colour in parts:
        axes.barh([0], [count], left=left, color=colour, height=0.5, label=f"{name}: {count:,}")
        left += count
    axes.set_yticks([])
    axes.set_xlim(0, max(found.n, 1))
    axes.set_xlabel("items", color=FAINT)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    plain(axes, grid=None)
    return svg(figure)


def differences_figure(whole: Measured, slices: Sequence[SliceVerdict], margin: float, other: str) -> str:
    """Candidate minus the other model over all items and by slice: dots with one-sided bounds, the margin dashed."""
    rows = [("all items", whole), *((one.name, one.measured) for one in slices)]
    figure = new_figure(WIDE, 0.9 + 0.27 * len(rows))
    axes = figure.add_subplot()
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.axvline(-margin, color=COLOURS["champion"], linewidth=1.2, linestyle=(0, (4, 3)))
    for place, (_, found) in enumerate(rows):
        colour = COLOURS["adapter"] if found.low > -margin else "#b91c1c" if found.high < -margin else FAINT
        width = 3.6 if place == 0 else 2.2
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=width, alpha=0.45)
        axes.plot([found.observed], [place], "o", color=colour, markersize=8 if place == 0 else 5)
    axes.set_yticks(range(len(rows)), [f"{name}  (n = {found.n:,})" for name, found in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"candidate minus {other}; dashed: the margin of {margin:g}", color=FAINT)
    plain(axes, grid="x")
    return svg(figure)


def loss_figure(training: TrainReport, width: float = WIDE) -> str:
    """Each stage's loss on training data by step, and on held-out data where the stage has one (nats per token)."""
    number = len(training.stages)
    across = (1, number) if width == WIDE else (number, 1)
    figure = new_figure(width, 2.8 if width == WIDE else 2.4 * number)
    panels = figure.subplots(*across, squeeze=False).flatten()
    for axes, stage in zip(panels, training.stages, strict=True):
        for name, look in _LOSSES.items():
            if points := stage.curves.get(name):
                axes.plot(*zip(*points, strict=True), **look)
        axes.set_ylim(bottom=0)
        axes.set_title(stage.stage, loc="left", color=INK, fontsize=10)
        axes.set_xlabel("step", color=FAINT)
        plain(axes, grid="y")
    panels[0].set_ylabel("loss", color=FAINT)
    shown = next((axes for axes in reversed(panels) if axes.get_legend_handles_labels()[0]), None)
    if shown is not None:
        shown.legend(frameon=False, labelcolor=INK)
    return svg(figure)


def reliability_figure(router: RouterReport) -> str:
    """How often answers of a confidence are right, beside what their confidence says; bars are 95 % intervals."""
    figure = new_figure(NARROW, 3.9)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
    for found in router.reliability:
        x, right = found.confidence, found.right
        axes.plot([x, x], [right.low, right.high], color=COLOURS["adapter"], linewidth=2.4, alpha=0.4)
        axes.plot([x], [right.value], "o", color=COLOURS["adapter"], markersize=6)
    lowest = min([0.9, *(min(found.confidence, found.right.low) for found in router.reliability)])
    axes.set_xlim(max(0, lowest - 0.05), 1.02)
    axes.set_ylim(max(0, lowest - 0.05), 1.02)
    axes.set_xlabel("confidence", color=FAINT)
    axes.set_ylabel("share that is right", color=FAINT)
    plain(axes, grid="y")
    return svg(figure)


def fallback_figure(router: RouterReport) -> str:
    """Accuracy of what stays on the phone by the share that goes to the cloud, and the recommended threshold."""
    figure = new_figure(NARROW, 3.9)
    axes = figure.add_subplot()
    points = [(point.cloud, point.accuracy) for point in router.curve if point.accuracy is not None]
    if points:
        axes.plot(*zip(*sorted(points), strict=True), color=COLOURS["adapter"], linewidth=1.8)
    axes.axhline(router.min_accuracy, color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
    if (at := router.at_threshold) is not None and at.accuracy is not None:
        axes.plot([at.cloud], [at.accuracy], "o", color=COLOURS["champion"], markersize=8)
        label = f"threshold {router.threshold:.3g}"
        axes.annotate(label, (at.cloud, at.accuracy), (8, -14), textcoords="offset points", color=INK, fontsize=9)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share that goes to the cloud", color=FAINT)
    axes.set_ylabel("right of what stays", color=FAINT)
    plain(axes, grid="y")
    return svg(figure)


def confusion_figure(confusion: dict[str, dict[str, int]]) -> str:
    """Rows are what was right, columns what was answered, each row as shares of its items; mistakes as counts.

    With more than 16 classes those with the most mistakes are shown.
    """
    rows = _most_mistaken(confusion)
    extra = sorted({answer for label in rows for answer in confusion[label]} - set(rows))
    columns = rows + (extra if len(rows) + len(extra) <= _MOST_CLASSES + 8 else [])
    shares = [
        [confusion[label].get(answer, 0) / sum(confusion[label].values()) for answer in columns] for label in rows
    ]
    size = 0.29
    figure = new_figure(2.3 + size * len(columns), 1.6 + size * len(rows))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for y, label in enumerate(rows):
        for x, answer in enumerate(columns):
            count = confusion[label].get(answer, 0)
            if count and label != answer:
                colour = "white" if shares[y][x] > 0.6 else "#b91c1c"
                axes.text(x, y, str(count), ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("answered", color=FAINT)
    axes.set_ylabel("right", color=FAINT)
    plain(axes, grid=None)
    return svg(figure)


def _most_mistaken(confusion: dict[str, dict[str, int]]) -> list[str]:
    if len(confusion) <= _MOST_CLASSES:
        return list(confusion)
    mistakes = {label: sum(row.values()) - row.get(label, 0) for label, row in confusion.items()}
    return sorted(sorted(confusion, key=lambda label: (-mistakes[label], label))[:_MOST_CLASSES])
