"""A gate's interval beside its bound, as a small drawing for the report."""

import math

from pocketloop.contracts.figures import FAINT, GRID
from pocketloop.contracts.reports import GateResult, Verdict

_COLOURS: dict[Verdict, str] = {"pass": "#15803d", "fail": "#b91c1c", "inconclusive": "#b45309"}
_WIDTH, _HEIGHT = 240.0, 34.0


def interval_svg(gate: GateResult) -> str:
    """SVG of 240 by 34: interval and value, dashed where they must lie right of; empty without an interval.

    Differences are drawn around zero, shares from 0 to 1.
    """
    found = gate.measured
    if found is None or gate.bound is None or gate.slices:
        return ""
    if gate.against:
        reach = 1.15 * max(abs(found.low), abs(found.high), abs(gate.bound), 0.01)
        first, last, marks = -reach, reach, [(0.0, "0")]
    else:
        first = max(0.0, math.floor(10 * min(found.low, gate.bound) - 0.5) / 10)
        last, marks = 1.0, [(1.0, "1")]

    def x(value: float) -> float:
        return round(6 + (_WIDTH - 12) * (value - first) / (last - first), 1)

    colour, middle = _COLOURS[gate.verdict], 10.0
    said = f"{found.observed:+.3f}, bounds {found.low:+.3f} and {found.high:+.3f}, held against {gate.bound:+g}"
    lines = [
        f'<line x1="6" x2="{_WIDTH - 6:g}" y1="{middle}" y2="{middle}" stroke="{GRID}"/>',
        *(f'<line x1="{x(v)}" x2="{x(v)}" y1="3" y2="17" stroke="{FAINT}"/>' for v, _ in marks),
        *(f'<text x="{x(v)}" y="30" fill="{FAINT}" font-size="10" text-anchor="middle">{t}</text>' for v, t in marks),
        f'<line x1="{x(gate.bound)}" x2="{x(gate.bound)}" y1="1" y2="19" stroke="{colour}" stroke-dasharray="3 2"/>',
        f'<line x1="{x(found.low)}" x2="{x(found.high)}" y1="{middle}" y2="{middle}" stroke="{colour}" '
        'stroke-width="4" stroke-opacity=".35"/>',
        f'<circle cx="{x(found.observed)}" cy="{middle}" r="4.5" fill="{colour}"/>',
    ]
    if gate.bound != marks[0][0]:
        place = f'x="{x(gate.bound)}" y="30" font-size="10" text-anchor="middle"'
        lines.append(f'<text {place} fill="{colour}">{gate.bound:g}</text>')
    size = f'viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" width="{_WIDTH:g}" height="{_HEIGHT:g}"'
    return f'<svg {size} role="img" aria-label="{said}"><title>{said}</title>{"".join(lines)}</svg>'
