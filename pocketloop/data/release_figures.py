"""Figures of a release's card, as SVG text to set into a page. The same numbers give the same bytes."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from pocketloop.contracts.figures import FAINT, INK, new_figure, plain, svg
from pocketloop.contracts.reports import Agreed, LeakAudit, StageCount
from pocketloop.data.profile import EDGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"train": "#1d4ed8", "validation": "#7aa5f5", "test": "#0f766e"}
LEFT_OUT = "#f3b4b4"
_BEFORE = "#d97706"
_MOST_LABELS = 40


def funnel_figure(stages: Sequence[StageCount]) -> str:
    """One bar a stage: the records that went on, and beside them those that were left out."""
    figure = new_figure(10.0, 0.35 + 0.42 * len(stages))
    axes = figure.add_subplot()
    most = max((stage.entered for stage in stages), default=1)
    places = range(len(stages))
    axes.barh(places, [stage.kept for stage in stages], color=COLOURS["train"], height=0.62)
    out = [stage.entered - stage.kept for stage in stages]
    axes.barh(places, out, left=[stage.kept for stage in stages], color=LEFT_OUT, height=0.62)
    for place, stage in enumerate(stages):
        lost = stage.entered - stage.kept
        said = f"{stage.kept:,}" + (f"  − {lost:,}" if lost else "")
        axes.text(stage.entered + most * 0.008, place, said, va="center", fontsize=9, color=INK)
    axes.set_yticks(places, [stage.stage for stage in stages])
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.16)
    axes.set_xticks([])
    plain(axes, grid=None)
    axes.spines["bottom"].set_visible(False)
    return svg(figure)


def mix_figure(labels: dict[str, dict[str, int]], before: dict[str, int] | None) -> str:
    """Examples by answer and split, the most frequent first; a tick where the answer's share was in the parent."""
    shown = list(labels)[:_MOST_LABELS]
    total = sum(sum(counts.values()) for counts in labels.values())
    figure = new_figure(10.0, 0.75 + 0.235 * len(shown))
    axes = figure.add_subplot()
    start = [0] * len(shown)
    for split, colour in COLOURS.items():
        widths = [labels[label].get(split, 0) for label in shown]
        axes.barh(range(len(shown)), widths, left=start, color=colour, height=0.66, label=split)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    if before:
        scale = total / max(1, sum(before.values()))
        for place, label in enumerate(shown):
            if label in before:
                x = before[label] * scale
                axes.plot([x, x], [place - 0.42, place + 0.42], color=_BEFORE, linewidth=2)
        axes.plot([], [], color=_BEFORE, linewidth=2, label="its share in the parent")
    most = axes.get_xlim()[1]
    for place, label in enumerate(shown):
        share = sum(labels[label].values()) / total
        axes.text(most * 1.07, place, f"{share:.1%}", va="center", ha="right", fontsize=8.5, color=FAINT)
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.07)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    plain(axes, grid="x")
    return svg(figure)


def days_figure(days: dict[str, int]) -> str:
    """Events by the day on which they happened; in bars of several days where they span many."""
    figure, axes = _small()
    start, width, counts = day_bars(days)
    first = date.fromisoformat(start)
    axes.bar(range(len(counts)), counts, color=COLOURS["train"], width=0.86)
    ticks = sorted({0, len(counts) // 2, len(counts) - 1})
    axes.set_xticks(ticks, [(first + timedelta(days=at * width)).isoformat() for at in ticks])
    if len(counts) > 2:
        axes.get_xticklabels()[0].set_ha("left")
        axes.get_xticklabels()[-1].set_ha("right")
    if width > 1:
        axes.set_xlabel(f"bars of {width} days", color=FAINT, fontsize=9)
    return svg(figure)


def day_bars(days: dict[str, int]) -> tuple[str, int, list[int]]:
    """The first day, how many days each bar covers (about a hundred bars at most), and the bars' counts."""
    first, last = (date.fromisoformat(day) for day in (min(days), max(days)))
    span = (last - first).days + 1
    width = next((width for width in (1, 7, 30) if span / width <= 100), -(-span // 100))
    counts = [0] * (-(-span // width))
    for day, count in days.items():
        counts[(date.fromisoformat(day) - first).days // width] += count
    return first.isoformat(), width, counts


def drift_figure(columns: dict[str, float], bound: float) -> str:
    """How far each column lies from the previous release (population stability index), and what counts as a drift."""
    names = sorted(columns, key=lambda name: (-columns[name], name))
    figure = new_figure(10.0, 0.9 + 0.25 * len(names))
    axes = figure.add_subplot()
    colours = [_BEFORE if columns[name] > bound else COLOURS["validation"] for name in names]
    axes.barh(range(len(names)), [columns[name] for name in names], color=colours, height=0.66)
    axes.axvline(bound, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
    for place, name in enumerate(names):
        axes.text(columns[name], place, f" {columns[name]:.2f}", va="center", fontsize=8.5, color=FAINT)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"population stability index; dashed: {bound:.2f}, from which a column drifted", color=FAINT)
    plain(axes, grid=None)
    return svg(figure)


def devices_figure(per_device: dict[str, int]) -> str:
    """How many devices have how many examples."""
    figure, axes = _small()
    axes.bar(range(len(per_device)), list(per_device.values()), color=COLOURS["train"], width=0.8)
    axes.set_xticks(range(len(per_device)), list(per_device))
    axes.set_xlabel("examples", color=FAINT, fontsize=9)
    return svg(figure)


def lengths_figure(counts: list[int], before: list[int] | None) -> str:
    """Share of the records by length in characters, the parent's as an outline."""
    figure, axes = _small()
    used = [at for at, count in enumerate(counts) if count or (before and before[at])]
    low, high = (used[0], used[-1] + 1) if used else (0, 1)
    names = [f"{start:,}" for start in EDGES]
    axes.bar(range(high - low), _shares(counts)[low:high], color=COLOURS["train"], width=0.9)
    if before:
        axes.stairs(_shares(before)[low:high], [at - 0.5 for at in range(high - low + 1)], color=_BEFORE, linewidth=1.8)
    every = max(1, (high - low) // 7)
    axes.set_xticks(range(0, high - low, every), names[low:high:every])
    axes.set_xlabel("characters, from", color=FAINT, fontsize=9)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return svg(figure)


def found_figure(found: dict[str, int]) -> str:
    """Values that were replaced, by type."""
    types = sorted((kind for kind, count in found.items() if count), key=lambda kind: (-found[kind], kind))
    figure = new_figure(4.9, 0.4 + 0.24 * len(types))
    axes = figure.add_subplot()
    axes.barh(range(len(types)), [found[kind] for kind in types], color=COLOURS["train"], height=0.66)
    most = max((found[kind] for kind in types), default=1)
    for place, kind in enumerate(types):
        axes.text(found[kind] + most * 0.015, place, f"{found[kind]:,}", va="center", fontsize=8.5, color=FAINT)
    axes.set_yticks(range(len(types)), types)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.2)
    axes.set_xticks([])
    plain(axes, grid=None)
    axes.spines["bottom"].set_visible(False)
    return svg(figure)


def audit_figure(audit: LeakAudit) -> str:
    """Recall and precision by type on labelled held-out text, with 95 % intervals."""
    figure = new_figure(4.9, 0.6 + 0.3 * len(audit.types))
    axes = figure.add_subplot()
    for place, found in enumerate(audit.types):
        for estimate, colour, shift in ((found.recall, COLOURS["train"], -0.13), (found.precision, _BEFORE, 0.13)):
            at = place + shift
            axes.plot([estimate.low, estimate.high], [at, at], color=colour, linewidth=2.2, alpha=0.45)
            axes.plot([estimate.value], [at], "o", color=colour, markersize=4.5)
    axes.plot([], [], "o", color=COLOURS["train"], markersize=4.5, label="recall")
    axes.plot([], [], "o", color=_BEFORE, markersize=4.5, label="precision")
    lowest = min((min(f.recall.low, f.precision.low) for f in audit.types), default=0.0)
    axes.set_yticks(range(len(audit.types)), [found.type for found in audit.types])
    axes.invert_yaxis()
    axes.set_xlim(max(-0.01, min(0.78, lowest - 0.02)), 1.005)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    plain(axes, grid="x")
    return svg(figure)


def agreement_figure(agreement: Sequence[Agreed]) -> str:
    """Cohen's kappa of the judge and people, with 95 % intervals."""
    told = [agreed for agreed in agreement if agreed.kappa is not None]
    figure = new_figure(6.4, 0.6 + 0.32 * len(told))
    axes = figure.add_subplot()
    for place, agreed in enumerate(told):
        if agreed.interval:
            axes.plot(agreed.interval, [place, place], color=COLOURS["train"], linewidth=2.4, alpha=0.45)
        axes.plot([agreed.kappa], [place], "o", color=COLOURS["train"], markersize=6)
    low = min((agreed.interval[0] for agreed in told if agreed.interval), default=0.0)
    axes.set_yticks(range(len(told)), [f"{agreed.rubric} ({agreed.source}, n = {agreed.n:,})" for agreed in told])
    axes.invert_yaxis()
    axes.set_ylim(len(told) - 0.5, -0.5)
    axes.set_xlim(min(-0.02, low - 0.02), 1.02)
    plain(axes, grid="x")
    return svg(figure)


def _small() -> tuple["Figure", "Axes"]:
    figure = new_figure(4.9, 2.1)
    axes = figure.add_subplot()
    plain(axes, grid="y")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure, axes


def _shares(counts: list[int]) -> list[float]:
    total = max(1, sum(counts))
    return [count / total for count in counts]
