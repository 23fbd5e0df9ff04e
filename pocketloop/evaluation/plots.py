"""Figures of the report, as SVG text to set into a page. The same numbers give the same bytes."""

from typing import Any

from pocketloop.contracts.figures import FAINT, INK, new_figure, plain, svg
from pocketloop.contracts.reports import SetResult, TrainReport

COLOURS = {"adapter": "#1d4ed8", "transformers": "#7aa5f5", "champion": "#d97706", "base": "#8a94a6"}
_MOST_CLASSES = 24

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


def scores_figure(results: list[SetResult]) -> str:
    """One row for each metric and model: the estimate as a dot, its 95 % interval as a line."""
    metrics = list(results[0].metrics)
    rows = [(metric, result) for metric in metrics for result in results if metric in result.metrics]
    figure = new_figure(10.0, 0.7 + 0.24 * len(rows) + 0.25 * len(metrics))
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
    axes.set_yticks(ticks, metrics)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    plain(axes, grid="x")
    return svg(figure)


def loss_figure(training: TrainReport) -> str:
    """Each stage's loss on training data by step, and on held-out data where the stage has one (nats per token)."""
    figure = new_figure(10.0, 2.8)
    panels = figure.subplots(1, len(training.stages), squeeze=False)[0]
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


def confusion_figure(confusion: dict[str, dict[str, int]]) -> str:
    """Rows are what was right, columns what was answered, each row as shares of its items; mistakes as counts.

    With more than 24 classes those with the most mistakes are shown.
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
