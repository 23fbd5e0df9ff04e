"""Two shapes of assistant on the same messages: one adapter of many roles, or a gateway with a specialist each.

Every message goes through a shape as a phone would send it: the answers are scored by what the message's example asks
for (its calls and its checks), what the gateway was too unsure about or called out of scope is not answered on the
phone, and every change of the adapter in use counts as a swap. Nothing that anybody said is in a result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Conversation
from pocketloop.contracts.examples import Example
from pocketloop.contracts.reports import Estimate
from pocketloop.evaluation.statistics import estimate, mcnemar_exact, noninferior
from pocketloop.tasks.tasks import TaskSpec

OUT_OF_SCOPE = "out_of_scope"
"""Messages that are for no agent: right is not to answer them on the phone."""
_CHAT = TaskSpec("chat", None)
_ONE_SIDED = 0.975
"""Of each bound, so that both bounds together make a 95 % interval."""


@dataclass(frozen=True)
class Said:
    """What an adapter answered, how sure it was, and how long it took with its swap (seconds)."""

    text: str
    confidence: float
    seconds: float


Ask = Callable[[str, Conversation, str], Said]
"""Asks an adapter by name, in a role (empty: none)."""


@dataclass(frozen=True)
class Shapes:
    """Who is compared: the adapter of many roles, the gateway, and the specialist of each agent.

    A gateway's answer below `threshold` is not trusted.
    """

    universal: str
    gateway: str
    specialists: dict[str, str]
    threshold: float


class AgentScore(BaseModel):
    """How one variant did on one agent's messages; `passed_on` is the share not answered on the phone."""

    model_config = ConfigDict(extra="forbid")

    right: Estimate
    passed_on: float


class VariantResult(BaseModel):
    """One way to use a shape: scores by agent and over all agents, what it ships, and what it costs.

    `swaps` a message; `milliseconds` (median and 95th percentile) from message to whole answer, gateway and swap
    included; `adapters` are shipped, `shipped_bytes` in all, and `update_bytes` when one agent changes (the largest).
    """

    model_config = ConfigDict(extra="forbid")

    variant: str
    about: str
    agents: dict[str, AgentScore]
    overall: Estimate
    adapters: list[str]
    shipped_bytes: int
    update_bytes: int
    swaps: float
    milliseconds: float
    milliseconds_95: float


class Difference(BaseModel):
    """`left` minus `right`, paired by message: the share of right answers with a 95 % interval, and McNemar's p."""

    model_config = ConfigDict(extra="forbid")

    left: str
    right: str
    agent: str
    n: int
    difference: float
    low: float
    high: float
    p: float


class ShapesReport(BaseModel):
    """Both shapes on `messages` (number of each agent), with the gateway's share of right agents and its confidence."""

    model_config = ConfigDict(extra="forbid")

    universal: str
    gateway: str
    specialists: dict[str, str]
    threshold: float
    base_bytes: int
    messages: dict[str, int]
    routed_right: dict[str, Estimate]
    left_out: list[str] = []
    """Agents that only one shape has."""
    variants: list[VariantResult]
    differences: list[Difference]


@dataclass(frozen=True)
class _Variant:
    """One way to use a shape: whether the universal adapter answers, and who says which agent is asked."""

    name: str
    about: str
    universal: bool
    named_by: Literal["gateway", "truth", "nobody"]


_VARIANTS = (
    _Variant("hybrid", "the gateway names the specialist that answers", False, "gateway"),
    _Variant("hybrid, right agent", "as if the gateway never erred", False, "truth"),
    _Variant("universal, right role", "the app knows which agent is asked, by its screen", True, "truth"),
    _Variant("universal, role by gateway", "the same gateway names the role", True, "gateway"),
    _Variant("universal, no role", "nobody says which agent is asked", True, "nobody"),
)
_PAIRS = (
    ("hybrid", "universal, role by gateway"),
    ("hybrid, right agent", "universal, right role"),
    ("universal, role by gateway", "universal, right role"),
)


@dataclass
class _Run:
    """What one variant did: by number of the message whether it was right, and what the gateway said it is for."""

    variant: _Variant
    right: dict[int, float] = field(default_factory=dict)
    passed_on: set[int] = field(default_factory=set)
    named: dict[int, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    swaps: int = 0


def compare_shapes(
    shapes: Shapes,
    sets: Mapping[str, Sequence[Example]],
    ask: Ask,
    sizes: Mapping[str, int],
    base_bytes: int,
    seed: int = 7,
) -> ShapesReport:
    """Send the same messages through both shapes, in one random order.

    Args:
        sets: held-out chat examples of each agent, and messages out of scope under `OUT_OF_SCOPE`.
        ask: asks an adapter on the phone's runtime.
        sizes: bytes of each adapter's file.

    Raises:
        DataError: no agent has messages and a specialist.
    """
    agents = [agent for agent in sets if agent in shapes.specialists and sets[agent]]
    if not agents:
        raise DataError("there is nothing to compare: no agent has both held-out messages and a specialist")
    asked = [(agent, example) for agent in [*agents, OUT_OF_SCOPE] for example in sets.get(agent, ())]
    Random(seed).shuffle(asked)
    runs = [_run(variant, shapes, asked, ask) for variant in _VARIANTS]
    true = [agent for agent, _ in asked]
    places = {agent: [at for at, name in enumerate(true) if name == agent] for agent in [*agents, OUT_OF_SCOPE]}
    places = {agent: at for agent, at in places.items() if at}
    named = runs[0].named
    return ShapesReport(
        universal=shapes.universal,
        gateway=shapes.gateway,
        specialists={agent: shapes.specialists[agent] for agent in agents},
        threshold=shapes.threshold,
        base_bytes=base_bytes,
        messages={agent: len(at) for agent, at in places.items()},
        routed_right={a: estimate([float(named[number] == a) for number in at]) for a, at in places.items()},
        left_out=sorted((set(sets) ^ set(shapes.specialists)) - {OUT_OF_SCOPE}),
        variants=[_result(run, shapes, places, sizes) for run in runs],
        differences=[found for pair in _PAIRS for found in _differences(runs, *pair, places)],
    )


def _run(variant: _Variant, shapes: Shapes, asked: list[tuple[str, Example]], ask: Ask) -> _Run:
    """Send every message through one variant; without a gateway nobody could tell what is out of scope."""
    run = _Run(variant)
    in_use = ""
    for number, (agent, example) in enumerate(asked):
        if variant.named_by != "gateway" and agent == OUT_OF_SCOPE:
            continue
        conversation = _CHAT.conversation(example.prompt)
        name: str | None = agent if variant.named_by == "truth" else ""
        seconds = 0.0
        if variant.named_by == "gateway":
            word = ask(shapes.gateway, conversation[-1:], "")
            seconds, run.swaps, in_use = word.seconds, run.swaps + (in_use != shapes.gateway), shapes.gateway
            name = run.named[number] = word.text.strip()
            if word.confidence < shapes.threshold or name not in shapes.specialists:
                name = None
        if name is None:
            run.passed_on.add(number)
            run.right[number] = float(agent == OUT_OF_SCOPE)
        else:
            adapter = shapes.universal if variant.universal else shapes.specialists[name]
            answer = ask(adapter, conversation, name if variant.universal else "")
            seconds, run.swaps, in_use = seconds + answer.seconds, run.swaps + (in_use != adapter), adapter
            scored = _CHAT.score(answer.text, example)["chat_right"]
            run.right[number] = scored if agent != OUT_OF_SCOPE else 0.0
        run.seconds.append(seconds)
    return run


def _result(run: _Run, shapes: Shapes, places: dict[str, list[int]], sizes: Mapping[str, int]) -> VariantResult:
    scores = {}
    for agent, at in places.items():
        known = [number for number in at if number in run.right]
        if known:
            passed_on = sum(number in run.passed_on for number in known) / len(known)
            scores[agent] = AgentScore(right=estimate([run.right[number] for number in known]), passed_on=passed_on)
    variant, taken = run.variant, sorted(run.seconds)
    adapters = [shapes.universal] if variant.universal else sorted(set(shapes.specialists.values()))
    if variant.named_by == "gateway" or not variant.universal:
        adapters = [shapes.gateway, *adapters]
    return VariantResult(
        variant=variant.name,
        about=variant.about,
        agents=scores,
        overall=estimate([run.right[number] for number in _meant(places)]),
        adapters=adapters,
        shipped_bytes=sum(sizes[name] for name in adapters),
        update_bytes=max(sizes[name] for name in adapters),
        swaps=run.swaps / len(taken),
        milliseconds=1000 * median(taken),
        milliseconds_95=1000 * taken[min(len(taken) - 1, round(0.95 * len(taken)))],
    )


def _differences(runs: list[_Run], left: str, right: str, places: dict[str, list[int]]) -> list[Difference]:
    one, other = (next(run.right for run in runs if run.variant.name == name) for name in (left, right))
    found = []
    for agent, at in [*places.items(), ("all", _meant(places))]:
        if agent == OUT_OF_SCOPE:
            continue
        ours, theirs = [one[number] for number in at], [other[number] for number in at]
        compared = noninferior(ours, theirs, margin=0.03, confidence=_ONE_SIDED)
        wins = sum(a > b for a, b in zip(ours, theirs, strict=True))
        losses = sum(a < b for a, b in zip(ours, theirs, strict=True))
        found.append(
            Difference(
                left=left,
                right=right,
                agent=agent,
                n=compared.n,
                difference=compared.difference,
                low=compared.low,
                high=compared.high,
                p=mcnemar_exact(losses, wins),
            )
        )
    return found


def _meant(places: dict[str, list[int]]) -> list[int]:
    """The messages that are for some agent."""
    return [number for agent, at in places.items() if agent != OUT_OF_SCOPE for number in at]
