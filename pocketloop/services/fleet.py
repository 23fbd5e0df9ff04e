"""A rollout in a sandbox: the real repository, CDN, collector and watcher, with a simulated fleet on the other side."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.delivery import AdapterFacts, BaseFacts, ChannelPolicy, Companion
from pocketloop.contracts.files import sha256_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_ladder
from pocketloop.contracts.rollout import Decision, DeliveryConfig, Ladder, PlannedRung, Promotion, Rollout
from pocketloop.delivery.page import write_page
from pocketloop.delivery.plan import measure, plan
from pocketloop.delivery.repository import Repository
from pocketloop.delivery.rollouts import RolloutStore, start_rollout, watch_once
from pocketloop.delivery.telemetry import fleet_size
from pocketloop.device.fleet import Collector, Look, Outcome, Simulation, judged
from pocketloop.device.fleet_clients import RealClients
from pocketloop.device.fleet_model import NEW, Channel, Clock, Fleet
from pocketloop.device.fleet_scenarios import Scenario
from pocketloop.export.base import PreparedBase
from pocketloop.models.llama_cpp import LlamaCppGenerator
from pocketloop.models.probes import failed_probes
from pocketloop.services import cdn, collector
from pocketloop.services.fleet_files import probed, random_adapter
from pocketloop.services.running import running

ADAPTER = "simulated"


class Rung(BaseModel):
    """A rung that the rollout reached: how long it took beside the plan. `None`: not within the ladder's limit."""

    percent: float
    hours: float
    planned_hours: float | None


class FleetReport(BaseModel):
    """What happened, for people and machines. Hours are simulated."""

    model_config = ConfigDict(extra="forbid")

    scenario: str
    expected: str
    ended: str
    """`complete`, `rolled_back by METRIC SEGMENT, ...`, or `holding: WHY`."""
    problems: list[str]
    devices: int
    real_devices: int
    daily_devices: int
    seed: int
    rungs: list[Rung]
    planned_days: float | None
    planned_late_days: float | None
    """Nine in ten rollouts of a good adapter take at most this long."""
    decided_hours: float
    """From the rollout's start to its last decision."""
    rung_hours: float
    """From the start of the rung that the decision ended."""
    median_settled_hours: float | None
    """From that decision until half of the devices that had to change had changed."""
    settled_hours: float | None
    """From that decision until every device held what it should; `None`: some do not."""
    devices_on_new: int
    devices_that_went_back_themselves: int
    devices_astray: int
    reports: int
    syncs: int
    requests: int
    bytes: int
    decisions: dict[str, int]
    page: str


class Sandbox(NamedTuple):
    """What the real side of a simulated rollout works with."""

    home: Home
    repository: Repository
    channel: Channel
    clock: Clock
    ladder: Ladder


def open_sandbox(home: Home, base: PreparedBase, old: Path, new: Path, ladder: Ladder) -> Sandbox:
    """Make keys and a repository in `home`, with both files approved and `old` served to everybody.

    Raises:
        DeliveryError: `home` has a repository already.
    """
    clock = Clock()
    repository = Repository.create(DeliveryConfig(), home, now=clock)
    digest = base.manifest.digest
    repository.propose_base(
        base.quantized,
        BaseFacts(
            base=base.manifest.base, quantization=base.manifest.quantization, parameters=base.manifest.parameters
        ),
    )
    files = []
    for version, file in enumerate((old, new), start=1):
        copy, companion = probed(base, file, ADAPTER, home.root / "adapters")
        facts = AdapterFacts(
            adapter=ADAPTER,
            version=str(version),
            released=str(version),
            bundle_digest=sha256_file(copy),
            base_digest=digest,
            task=companion.task,
        )
        repository.propose_adapter(copy, companion, facts)
        files.append(copy.stem)
    repository.sign()
    repository.publish()
    channel = Channel(ADAPTER, digest, *files)
    repository.set_policy(
        ChannelPolicy(adapter=ADAPTER, base_digest=digest, generation=1, stable=channel.old, updated=clock())
    )
    return Sandbox(home, repository, channel, clock, ladder)


class Rehearsal(NamedTuple):
    """A rollout that a simulated fleet lived through: its record, and the decision of every look."""

    report: FleetReport
    rollout: Rollout
    decisions: list[Decision]


def rehearse(scenario: Scenario, base: PreparedBase, folder: Path, *, devices: int, seed: int = 1) -> Rehearsal:
    """Live through a scenario in an empty folder, on its own ladder, with random adapters and five real clients."""
    old, new = (random_adapter(base, folder / "given" / f"{name}.gguf", 2 * seed + name) for name in (0, 1))
    sandbox = open_sandbox(Home(folder), base, old, new, load_ladder(scenario.ladder))
    decisions: list[Decision] = []
    rollouts: list[Rollout] = []

    def on_look(look: Look, rollout: Rollout) -> None:
        decisions.append(look.decision)
        rollouts[:] = [rollout]

    page = folder / "page.html"
    report = simulate(
        scenario, sandbox, base, devices=devices, real=5, seed=seed, look_hours=6, page=page, on_look=on_look
    )
    return Rehearsal(report, rollouts[-1], decisions)


def simulate(
    scenario: Scenario,
    sandbox: Sandbox,
    base: PreparedBase,
    *,
    devices: int,
    real: int,
    seed: int,
    look_hours: float,
    page: Path,
    on_look: Callable[[Look, Rollout], None] = lambda look, rollout: None,
) -> FleetReport:
    """Live through a rollout in `sandbox` and report how it went; `problems` lists what the scenario did not expect.

    Raises:
        PocketloopError: a part that should work did not.
    """
    home, repository, channel, clock, ladder = sandbox
    store = RolloutStore(home.rollouts)
    fleet = Fleet(scenario.population, scenario.effects, devices, seed)
    current: list[Rollout] = []

    app = collector.create_app(home.telemetry, flush_seconds=3600, clock=clock)

    def begin(now: datetime) -> None:
        app.state.inbox.flush()
        size = fleet_size(home.telemetry, now)
        promotion = Promotion(
            adapter=channel.adapter,
            state="published",
            detail="",
            version="2",
            released="2",
            digest=channel.new,
            base_digest=channel.base_digest,
        )
        baseline = measure(ladder, home.telemetry, channel.adapter, channel.base_digest, now)
        expected = plan(ladder, max(1, size), "simulated telemetry", baseline)
        current.append(start_rollout(repository, store, ladder, promotion, expected, now))

    def watch(now: datetime) -> Decision:
        app.state.inbox.flush()
        repository.refresh(now)
        return watch_once(repository, store, current[0], home.telemetry, now)

    with (
        running(cdn.create_app(home.cdn)) as served,
        running(app) as collected,
        LlamaCppGenerator(base.quantized, base.tokenizer) as generator,
    ):

        def probe(file: Path, companion: Companion) -> int:
            generator.set_adapter(file)
            return failed_probes(generator, companion.probes)

        clients = RealClients(home.device, served, repository.root_bytes(), channel, fleet.ids[:real], probe, clock)
        simulation = Simulation(
            fleet, channel, clients, Collector(collected), clock, begin=begin, watch=watch, hours=look_hours
        )
        outcome = simulation.run(scenario, lambda look: on_look(look, current[0]))
    rollout = current[0]
    write_page(page, rollout)
    return _report(scenario, rollout, outcome, fleet, clients, page, seed)


def _report(
    scenario: Scenario,
    rollout: Rollout,
    outcome: Outcome,
    fleet: Fleet,
    clients: RealClients,
    page: Path,
    seed: int,
) -> FleetReport:
    expected = rollout.plan
    begun = [(at - rollout.started).total_seconds() / 3600 for at in rollout.rungs]
    if outcome.state == "complete":
        begun.pop()  # everybody: it begins with the last decision
    ends = [*begun[1:], outcome.decided_hours]
    planned: list[PlannedRung | None] = [*expected.rungs] if expected else [None] * len(rollout.ladder.rungs)
    last = outcome.looks[-1].decision
    harmful = [f"{e.metric} {e.segment}".strip() for e in last.guardrails if e.harmful]
    ended = {
        "complete": "complete",
        "rolled_back": f"rolled_back by {', '.join(harmful) or last.reason}",
        "holding": f"holding: {last.reason}",
    }[outcome.state]
    after = [
        None if hours is None else hours - outcome.decided_hours
        for hours in (outcome.median_hours, outcome.settled_hours)
    ]
    return FleetReport(
        scenario=scenario.scenario,
        expected=str(scenario.expect),
        ended=ended,
        problems=judged(scenario.expect, outcome),
        devices=fleet.devices,
        real_devices=clients.count,
        daily_devices=expected.daily_devices if expected else 0,
        seed=seed,
        rungs=[
            Rung(
                percent=rung.percent,
                hours=end - start,
                planned_hours=plan.days * 24 if plan and plan.days is not None else None,
            )
            for rung, start, end, plan in zip(rollout.ladder.rungs, begun, ends, planned, strict=False)
        ],
        planned_days=expected.days if expected else None,
        planned_late_days=expected.late_days if expected else None,
        decided_hours=outcome.decided_hours,
        rung_hours=outcome.decided_hours - begun[-1],
        median_settled_hours=after[0],
        settled_hours=after[1],
        devices_on_new=int((fleet.holds == NEW).sum()),
        devices_that_went_back_themselves=outcome.refused,
        devices_astray=len(outcome.astray),
        reports=outcome.reports,
        syncs=clients.syncs,
        requests=clients.requests,
        bytes=clients.bytes,
        decisions=dict(Counter(look.decision.action for look in outcome.looks)),
        page=str(page),
    )
