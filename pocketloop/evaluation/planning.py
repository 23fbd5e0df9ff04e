"""How many held-out items a recipe's gates need, before anything is trained."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.recipe import Gate, Recipe
from pocketloop.contracts.reports import GateDecision, GateResult
from pocketloop.evaluation.gates import MAX_HALF_WIDTH
from pocketloop.evaluation.paired_gates import gate_name
from pocketloop.evaluation.statistics import (
    chance_to_pass,
    chance_to_win,
    items_for_width,
    pairs_needed,
    wilson,
    wins_needed,
)
from pocketloop.tasks.tasks import TaskSpec

ASSUMED_DISCORDANCE = 0.10
"""Share of items on which two versions differ, where nothing was seen yet: what a retrained small adapter does."""
ASSUMED_GAIN = 0.05
"""What a better candidate is expected to be ahead by."""


class PlannedGate(BaseModel):
    """What one gate needs.

    `share` is the expected share of right items (a floor) or of items on which the two models differ (a comparison),
    and `source` says where from. `needed` items give the asked power: to an equally good candidate for non-inferiority,
    to one ahead by `gain` for superiority; a floor needs as many as make its interval narrow enough. `items` is what
    there is (of a gate on slices: the smallest slice that is waited for), `chance` what it gives.
    """

    model_config = ConfigDict(extra="forbid")

    gate: str
    key: str
    share: float
    source: str
    gain: float | None = None
    needed: int
    items: int | None = None
    chance: float | None = None
    enough: bool | None = None


def plan_gates(
    recipe: Recipe,
    seen: Sequence[tuple[str, GateDecision]] = (),
    items: int | None = None,
    margin: float | None = None,
    power: float = 0.8,
    gain: float = ASSUMED_GAIN,
) -> list[PlannedGate]:
    """Plan every gate of a recipe; `seen` are earlier versions' decisions, the newest first.

    `margin` takes the place of the recipe's own margins; where the recipe compares with nothing, it is planned for the
    main metric against a champion. `items` is the size of the evaluation set that there is.
    """
    gates = [(f"gates.{at}", gate) for at, gate in enumerate(recipe.gates)]
    if margin is not None:
        gates = [
            (key, gate.model_copy(update={"margin": margin}) if gate.noninferior_to else gate) for key, gate in gates
        ]
        if not any(gate.noninferior_to for _, gate in gates):
            metric = TaskSpec.of(recipe, None).metrics[0]
            gates.append(("--margin", Gate(metric=metric, noninferior_to="champion", margin=margin)))
    base = Gate(metric=TaskSpec.of(recipe, None).metrics[0], superior_to="base")
    return [_planned(key, gate, seen, items, power, gain) for key, gate in [*gates, ("", base)]]


def _planned(
    key: str, gate: Gate, seen: Sequence[tuple[str, GateDecision]], items: int | None, power: float, gain: float
) -> PlannedGate:
    share, source, found = _expected(gate, seen)
    if gate.slices and found:
        waited_for = [one.measured.n for one in found.slices if not one.small]
        items = min(waited_for, default=gate.min_items)
    elif gate.slices:
        items = None
    name = gate_name(gate)
    if gate.min is not None:
        needed = items_for_width(share, MAX_HALF_WIDTH)
        enough = None
        if items:
            low, high = wilson(round(share * items), items)
            enough = (high - low) / 2 <= MAX_HALF_WIDTH
        return PlannedGate(gate=name, key=key, share=share, source=source, needed=needed, items=items, enough=enough)
    if gate.noninferior_to:
        needed = pairs_needed(share, gate.allowance, gate.confidence, power)
        chance = chance_to_pass(items, share, gate.allowance, gate.confidence) if items else None
        ahead = None
    else:
        ahead = _gain(gate, found, gain)
        share = max(share, ahead)
        needed = wins_needed(ahead, share, gate.allowance, gate.confidence, power)
        chance = chance_to_win(items, ahead, share, gate.allowance, gate.confidence) if items else None
    return PlannedGate(
        gate=name,
        key=key,
        share=share,
        source=source,
        gain=ahead,
        needed=needed,
        items=items,
        chance=chance,
        enough=None if chance is None else chance >= power,
    )


def _gain(gate: Gate, found: GateResult | None, gain: float) -> float:
    """By how much a better candidate is ahead: as before where one was, the assumption otherwise."""
    if found and found.observed is not None and found.observed > gate.allowance:
        return found.observed
    return gate.allowance + gain


def _expected(gate: Gate, seen: Sequence[tuple[str, GateDecision]]) -> tuple[float, str, GateResult | None]:
    """The share that the gate's test depends on, where it is from, and the same gate as it was judged before."""
    for version, decision in seen:
        for found in decision.gates:
            if found.measured is None or not found.gate.startswith(f"{gate.metric} "):
                continue
            if gate.min is not None and found.test == "floor" and found.measured.n:
                return found.measured.observed, f"{version} had that share right", found
            alike = bool(gate.slices) == bool(found.slices)
            if gate.min is None and found.against == gate.against and alike and found.measured.n:
                differed = found.measured.wins + found.measured.losses
                return max(differed, 1) / found.measured.n, f"{version} and {gate.against} differed so often", found
    if gate.min is not None:
        return gate.min, "the floor itself", None
    return ASSUMED_DISCORDANCE, "assumed: nothing was compared yet", None
