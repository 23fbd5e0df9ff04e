"""A rollout lived through by a simulated fleet: sync, use, report, watch, step by step, until it has ended.

Policies come from a real client that verified them, some devices are real clients, reports travel over HTTP to the real
collector, and the watcher is what the caller hands in. Only time, and how people use their phones, is made up.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import Literal, NamedTuple, Protocol

import numpy as np
import requests

from pocketloop.contracts.delivery import ChannelPolicy
from pocketloop.contracts.errors import DeviceError
from pocketloop.contracts.rollout import Decision
from pocketloop.device.fleet_model import NEW, OLD, Channel, Clock, Fleet
from pocketloop.device.fleet_scenarios import Expected, Scenario

State = Literal["complete", "rolled_back", "holding"]
_BATCH = 2000  # reports a request
_PATIENCE = 60.0  # seconds


class Clients(Protocol):
    """The devices of the fleet that are real: the first `count` of them."""

    count: int

    def policy(self) -> ChannelPolicy:
        """The channel's policy as a client verifies it now."""

    def sync(self, number: int) -> str | None:
        """One real sync of this device; returns the sha256 of the file that it then runs."""

    def runs(self, number: int) -> str | None:
        """sha256 of the file that this device runs."""

    def crash_loop(self, number: int) -> None:
        """The device crashes until it goes back by itself."""


class Look(NamedTuple):
    """The fleet after one step, and what the watcher decided. Hours are since the rollout's start."""

    hours: float
    policy: ChannelPolicy
    decision: Decision
    on_new: int
    reports: int


class Outcome(NamedTuple):
    """How a rollout ended. Hours are since its start; `None`: it has not happened."""

    state: State
    decided_hours: float
    """When the last decision fell; when the simulation ended, if none did."""
    settled_hours: float | None
    """When the last device held the file that the rollout left it."""
    median_hours: float | None
    """When half of those that had to change had changed."""
    astray: list[str]
    """Devices that hold another file than they should."""
    refused: int
    """Devices that went back by themselves and rightly keep the old file."""
    looks: list[Look]
    reports: int


class Collector:
    """The collector's address; posts reports in arrays and insists that each is taken."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, reports: Iterable[str]) -> int:
        """Post these JSON objects; returns how many.

        Raises:
            DeviceError: the collector refused a report.
        """
        waiting, sent = iter(reports), 0
        while batch := list(islice(waiting, _BATCH)):
            answer = requests.post(  # a connection of its own: a kept one may be closed just as it is used again
                f"{self.url}/telemetry",
                data=f"[{','.join(batch)}]".encode(),
                headers={"Content-Type": "application/json"},
                timeout=_PATIENCE,
            )
            if not answer.ok:
                raise DeviceError(f"{self.url}/telemetry answered {answer.status_code}: {answer.text[:300]}")
            sent += len(batch)
        return sent


class Simulation:
    """One rollout and the fleet that lives through it.

    Args:
        fleet: the devices.
        channel: what they hold, and what is rolled out.
        clients: the real ones among them.
        collector: where reports go.
        clock: set by this simulation, read by everybody else.
        begin: starts the rollout at this moment.
        watch: keeps the repository alive, looks at the telemetry and decides; after the end it decides nothing more.
        hours: length of a step: everybody acts, then the watcher looks.
    """

    def __init__(
        self,
        fleet: Fleet,
        channel: Channel,
        clients: Clients,
        collector: Collector,
        clock: Clock,
        *,
        begin: Callable[[datetime], object],
        watch: Callable[[datetime], Decision],
        hours: float,
    ) -> None:
        self.fleet, self.channel, self.clients, self.collector, self.clock = fleet, channel, clients, collector, clock
        self.begin, self.watch, self.hours = begin, watch, hours
        self.reports = 0

    def run(self, scenario: Scenario, on_look: Callable[[Look], None] = lambda look: None) -> Outcome:
        """Warm up, roll out, and go on until the rollout has ended and every device has what it should have.

        Raises:
            DeviceError: a real client fails, or disagrees with the model about what it should run.
        """
        clock = self.clock
        while clock.hours < scenario.warmup_hours:
            self._live()
        started = clock.hours
        self.begin(clock())
        looks: list[Look] = []
        state: State = "holding"
        while state == "holding" and clock.hours - started < scenario.days * 24:
            policy = self._live()
            decision = self.watch(clock())
            on_new = int((self.fleet.holds == NEW).sum())
            looks.append(Look(clock.hours - started, policy, decision, on_new, self.reports))
            on_look(looks[-1])
            state = _ENDS.get(decision.action, "holding")
        decided = clock.hours - started
        times = self._settle() if state != "holding" else []
        astray = self._astray(self._wanted(self.clients.policy()))
        if state == "holding":  # a device that has not asked yet is not astray
            astray = astray[self.fleet.holds[astray] == NEW]
        return Outcome(
            state=state,
            decided_hours=decided,
            settled_hours=times[-1] - started if times and not len(astray) else None,
            median_hours=times[len(times) // 2] - started if times else None,
            astray=[self.fleet.ids[number] for number in astray],
            refused=int(self.fleet.refused.sum()),
            looks=looks,
            reports=self.reports,
        )

    def _live(self) -> ChannelPolicy:
        """One step of everybody: follow the policy that stands at its beginning, use, report at its end."""
        fleet = self.fleet
        fleet.leave(self.clock.hours, self.hours)
        policy = self._follow()
        now = self.clock.hours = self.clock.hours + self.hours
        fleet.use(now, self.hours)
        self._post(fleet.reporting(now))
        for number in self._real(np.flatnonzero(fleet.refused & (fleet.holds == NEW))):
            self.clients.crash_loop(number)
        fleet.leave_loops(now)
        return policy

    def _follow(self) -> ChannelPolicy:
        """Those whose sync is due take what the policy gives them; what they counted with another file is posted."""
        fleet, now = self.fleet, self.clock.hours
        policy = self.clients.policy()
        asking = fleet.asking(now)
        wanted = self._wanted(policy)[asking]
        changing = fleet.swaps(asking, wanted)
        self._post(changing[fleet.counts[changing].any(axis=1)])
        fleet.follow(asking, wanted, policy.generation, now)
        for number in self._real(asking):
            self._check(number, self.clients.sync(number))
        return policy

    def _settle(self) -> list[float]:
        """Nothing is decided any more: devices sync when they are back. Returns when each that changed did, sorted."""
        fleet, clock = self.fleet, self.clock
        limit = clock.hours + 2 * fleet.population.sync_hours + 5 * fleet.population.away_hours
        wanted = self._wanted(self.clients.policy())
        times: list[float] = []
        missing = len(self._astray(wanted))
        while missing and clock.hours < limit:
            clock.hours += self.hours
            self.watch(clock())
            self._follow()
            times += [clock.hours] * (missing - len(self._astray(wanted)))
            missing = len(self._astray(wanted))
        return times

    def _wanted(self, policy: ChannelPolicy) -> np.ndarray:
        """What the policy gives each device: OLD or NEW."""
        files = {self.channel.old: OLD, self.channel.new: NEW}
        stable = np.full(self.fleet.devices, files[policy.stable])
        if not policy.canary_ppm:
            return stable
        return np.where(self.fleet.in_canary(policy.salt, policy.canary_ppm), files[policy.canary], stable)

    def _astray(self, wanted: np.ndarray) -> np.ndarray:
        """Devices that hold another file than they should; those that refused the new one should hold the old one.

        For the real clients, what lies on their disk counts.
        """
        holds = self.fleet.holds.copy()
        for number in range(self.clients.count):
            holds[number] = NEW if self.clients.runs(number) == self.channel.new else OLD
        return np.flatnonzero(holds != np.where(self.fleet.refused, OLD, wanted))

    def _check(self, number: int, runs: str | None) -> None:
        expected = (self.channel.old, self.channel.new)[self.fleet.holds[number]]
        if runs != expected:
            raise DeviceError(
                f"device {self.fleet.ids[number]}: the real client runs {runs}, the simulation expects {expected}"
            )

    def _real(self, which: np.ndarray) -> list[int]:
        return [int(number) for number in which[which < self.clients.count]]

    def _post(self, which: np.ndarray) -> None:
        self.reports += self.collector.post(self.fleet.reports(which, self.clock.hours, self.channel))


def judged(expected: Expected, outcome: Outcome) -> list[str]:
    """What is not as the scenario says it should be; empty when all is."""
    problems = []
    last = outcome.looks[-1].decision
    if outcome.state != expected.state:
        problems.append(f"the rollout should end {expected}, and is {outcome.state}: {last.reason}")
    elif expected.state == "rolled_back" and not any(_shows(last, metric, expected) for metric in expected.metrics):
        named = ", ".join(f"{e.metric} {e.segment}".strip() for e in last.guardrails if e.harmful) or last.reason
        problems.append(f"it should be {expected}, and the evidence shows {named}")
    if expected.state == "holding" and any(look.decision.action == "widen" for look in outcome.looks):
        problems.append("it was widened, and should not have been")
    if outcome.astray:
        problems.append(f"{len(outcome.astray)} devices hold another file than they should, {outcome.astray[0]} first")
    return problems


def _shows(decision: Decision, metric: str, expected: Expected) -> bool:
    """Whether the evidence shows harm by `metric`, and its worst segment is the expected one, if one is expected."""
    found = [evidence for evidence in decision.guardrails if evidence.metric == metric]
    segments = [evidence for evidence in found if evidence.segment]
    worst = max(segments, key=lambda one: one.log_e_harm, default=None)
    harmful = any(evidence.harmful for evidence in found)
    return harmful and (not expected.segment or (worst is not None and worst.segment == expected.segment))


_ENDS: dict[str, State] = {"finish": "complete", "roll_back": "rolled_back"}
