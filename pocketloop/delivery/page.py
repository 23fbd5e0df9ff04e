"""The page of a rollout that a person opens: one HTML file that needs nothing beside it, and names no device."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pocketloop.contracts.delivery import MILLION
from pocketloop.contracts.figures import FAINT, INK, new_figure, plain, svg
from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.pages import render_template
from pocketloop.contracts.rollout import Decision, GuardrailEvidence, PlannedRung, Rollout
from pocketloop.delivery.decide import is_harmful

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE, _BAD, _GOOD = "#1d4ed8", "#b91c1c", "#15803d"
_RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Ticks of the ratio; what lies beyond is drawn at the last one."""


def write_page(path: Path, rollout: Rollout) -> None:
    """Write the rollout's page to `path`: the ladder over time, each guardrail's ratio, decisions, plan and reality."""
    html = render_page(rollout)
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render_page(rollout: Rollout) -> str:
    """The page as HTML text."""
    from markupsafe import Markup

    metrics = [guardrail.metric for guardrail in rollout.ladder.guardrails]
    judged = [decision for decision in rollout.decisions if decision.guardrails]
    # Every figure is drawn here from numbers; matplotlib escapes the few names in it.
    figures = {
        "ladder": Markup(ladder_figure(rollout)),  # noqa: S704
        "ratios": {metric: Markup(ratio_figure(rollout, metric)) for metric in metrics} if judged else {},  # noqa: S704
    }
    return render_template(
        Path(__file__).parent / "page.html.j2",
        rollout=rollout,
        last=rollout.decisions[-1],
        evidence=judged[-1].guardrails if judged else [],
        judged_at=judged[-1].at if judged else None,
        rungs=_rungs(rollout),
        decisions=_told(rollout.decisions),
        figures=figures,
        harmful=is_harmful,
        guardrails={guardrail.metric: guardrail for guardrail in rollout.ladder.guardrails},
    )


def ladder_figure(rollout: Rollout) -> str:
    """Share of the fleet that is served the new file, over time, as SVG text; holds and the plan beside it."""
    figure, axes = _axes(10.0, 2.7)
    days = [_days(rollout, decision.at) for decision in rollout.decisions]
    shares = [_percent(decision) for decision in rollout.decisions]
    if rollout.state == "running":
        axes.plot([days[-1]], [shares[-1]], "o", color=_LINE, markersize=6)
    if rollout.plan and rollout.plan.days is not None:
        at, planned_days, planned = 0.0, [], []
        for rung in rollout.plan.rungs:
            planned_days.append(at)
            planned.append(rung.percent)
            at += rung.days or 0.0
        axes.step(planned_days, planned, where="post", color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), label="plan")
    axes.step(days, shares, where="post", color=_LINE, linewidth=2.2, label="served")
    if rollout.state == "rolled_back":
        axes.plot([days[-1]], [0], "X", color=_BAD, markersize=9, label="taken back")
    if rollout.state == "complete":
        axes.plot([days[-1]], [100], "o", color=_GOOD, markersize=8, label="everybody")
    axes.set_ylim(-4, 106)
    axes.set_xlim(left=0, right=max(days[-1], 1.0) * 1.03)
    axes.set_yticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("days since the start", color=FAINT)
    axes.set_ylabel("share of the fleet", color=FAINT)
    axes.legend(frameon=False, labelcolor=INK, loc="upper left", ncols=4)
    return svg(figure)


def ratio_figure(rollout: Rollout, metric: str) -> str:
    """How many times as often canary devices were affected as control devices: the confidence sequence over time."""
    figure, axes = _axes(4.9, 2.3)
    found = [
        (_days(rollout, decision.at), evidence, rollout.ladder.rungs[decision.rung].loosen)
        for decision in rollout.decisions
        for evidence in decision.guardrails
        if evidence.metric == metric and not evidence.segment
    ]
    low, high = _RATIOS[0], _RATIOS[-1]
    days = [day for day, _, _ in found]
    lows = [min(max(evidence.ratio_low, low), high) for _, evidence, _ in found]
    highs = [min(max(evidence.ratio_high, low), high) for _, evidence, _ in found]
    most = next(guardrail.max_ratio for guardrail in rollout.ladder.guardrails if guardrail.metric == metric)
    axes.fill_between(days, lows, highs, color=_LINE, alpha=0.22, linewidth=0, step="post")
    axes.plot(days, [_point(evidence) for _, evidence, _ in found], color=_LINE, linewidth=1.8, drawstyle="steps-post")
    axes.plot(
        days,
        [min(1 + (most - 1) * loosen, high) for _, _, loosen in found],
        color=_BAD,
        linewidth=1.2,
        linestyle=(0, (4, 3)),
        drawstyle="steps-post",
    )
    axes.axhline(1, color=FAINT, linewidth=0.8)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.15, high * 1.15)
    axes.set_xlim(left=0, right=max(days[-1], 1.0) * 1.03)
    axes.set_yticks(_RATIOS, [f"{ratio:g}" for ratio in _RATIOS])
    axes.set_xlabel("days since the start", color=FAINT)
    axes.set_ylabel("canary / control", color=FAINT)
    axes.minorticks_off()
    return svg(figure)


def evidence_figure(rollout: Rollout, decisions: Sequence[Decision]) -> str:
    """The e-value of each guardrail against "the canary harms nobody more", look by look; log scale, in powers of ten.

    What crossed its threshold (dashed) is drawn in red, the others faintly; one line that ends with a segment's name is
    of the segment that looked worst. `decisions` are the looks, which may be more than the rollout's record keeps.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    thresholds: dict[str, float] = {}
    for decision in decisions:
        for one in decision.guardrails:
            name = f"{one.metric} in {one.segment}" if one.segment else one.metric
            lines.setdefault(name, []).append((_days(rollout, decision.at), one.log_e_harm / math.log(10)))
            thresholds[name] = one.harm_threshold / math.log(10)
    figure, axes = _axes(10.0, 3.6)
    crossed = [name for name, points in lines.items() if points[-1][1] >= thresholds[name]]
    shown = [name for name in lines if " in " not in name or name in crossed]
    for name in shown:
        days, values = zip(*lines[name], strict=True)
        colour = _BAD if name in crossed else FAINT
        width = 2.2 if name in crossed else 1.1
        axes.plot(days, values, color=colour, linewidth=width, marker="." if name in crossed else None)
    for threshold in sorted({thresholds[name] for name in shown}):
        axes.axhline(threshold, color=_BAD, linewidth=1, linestyle=(0, (4, 3)))
    _label_ends(axes, {name: lines[name][-1] for name in shown}, set(crossed))
    axes.set_xlabel("days since the start", color=FAINT)
    axes.set_ylabel("evidence of harm: log10 of the e-value", color=FAINT)
    return svg(figure)


def _label_ends(axes: "Axes", ends: dict[str, tuple[float, float]], crossed: set[str]) -> None:
    """Name each line at its right end; names that would cover each other are moved apart."""
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    last = -math.inf
    for name, (day, value) in sorted(ends.items(), key=lambda item: item[1][1]):
        last = max(value, last + (high - low) * 0.06)
        colour = _BAD if name in crossed else FAINT
        axes.text(day + (right - left) * 0.01, last, name, color=colour, fontsize=8.5, va="center")
    axes.set_xlim(left, left + (right - left) * 1.16)


def _point(evidence: GuardrailEvidence) -> float | None:
    """The observed ratio of affected shares, within the axis; nothing where nobody was affected."""
    if not evidence.canary_affected + evidence.control_affected:
        return None
    canary = (evidence.canary_affected + 0.5) / (evidence.canary_devices + 1)
    control = (evidence.control_affected + 0.5) / (evidence.control_devices + 1)
    return min(max(canary / control, _RATIOS[0]), _RATIOS[-1])


def _rungs(rollout: Rollout) -> list[dict[str, object]]:
    """Each rung's plan beside what it took."""
    planned: list[PlannedRung | None] = [*rollout.plan.rungs] if rollout.plan else [None] * len(rollout.ladder.rungs)
    ended = rollout.decisions[-1].at
    rows: list[dict[str, object]] = []
    for place, (rung, expected) in enumerate(zip(rollout.ladder.rungs, planned, strict=True)):
        began = rollout.rungs[place] if place < len(rollout.rungs) else None
        until = rollout.rungs[place + 1] if place + 1 < len(rollout.rungs) else ended
        took = (until - began) / timedelta(days=1) if began else None
        rows.append({"rung": rung, "planned": expected, "began": began, "took": took})
    return rows


def _told(decisions: list[Decision]) -> list[tuple[Decision, int]]:
    """Newest first, with repetitions folded: the last decision of each run that says the same, and their number."""
    told: list[tuple[Decision, int]] = []
    for decision in decisions:
        if told and (told[-1][0].action, told[-1][0].why, told[-1][0].rung) == (
            decision.action,
            decision.why,
            decision.rung,
        ):
            told[-1] = (decision, told[-1][1] + 1)
        else:
            told.append((decision, 1))
    return told[::-1]


def _days(rollout: Rollout, moment: datetime) -> float:
    return (moment - rollout.started) / timedelta(days=1)


def _percent(decision: Decision) -> float:
    return decision.ppm_after / MILLION * 100


def _axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    plain(axes, grid="y")
    return figure, axes
