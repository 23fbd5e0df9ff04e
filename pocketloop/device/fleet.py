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
from pocketloop.device.fleet_model import NEW, OLD, Channel, Fleet, moment
from pocketloop.device.fleet_scenarios import Scenario

State = Literal["complete", "rolled_back", "holding"]
_BATCH = 2000  # reports a request
_PATIENCE = 60.0  # seconds


class Clients(Protocol):
    """The devices of the fleet that are real: the first `count` of them."""

    count: int

    def policy(self, now: datetime) -> ChannelPolicy:
        """The channel's policy as a client of its own verifies it at this moment."""

    def sync(self, number: int, now: datetime) -> str | None:
        """One real sync of this device; returns the sha256 of the file that it then runs."""

    def crash_loop(self, number: int, now: datetime) -> None:
        """The device crashed until it went back by itself."""


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
    real: int
    """Real clients whose own disk was checked."""
    looks: list[Look]
    reports: int


class Collector:
    """The collector's address; posts reports in arrays and insists that each is taken."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def post(self, reports: Iterable[str]) -> int:
        """Post these JSON objects; returns how many.

        Raises:
            DeviceError: the collector refused a report.
        """
        waiting, sent = iter(reports), 0
        while batch := list(islice(waiting, _BATCH)):
            answer = self.session.post(
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
        begin: starts the rollout at this moment.
        watch: looks at the telemetry at this moment and decides.
        hours: length of a step: everybody acts, then the watcher looks.
    """

    def __init__(
        self,
        fleet: Fleet,
        channel: Channel,
        clients: Clients,
        collector: Collector,
        *,
        begin: Callable[[datetime], object],
        watch: Callable[[datetime], Decision],
        hours: float,
    ) -> None:
        self.fleet, self.channel, self.clients, self.collector = fleet, channel, clients, collector
        self.begin, self.watch, self.hours = begin, watch, hours
        self.now = 0.0
        self.reports = 0

    def run(self, scenario: Scenario, on_look: Callable[[Look], None] = lambda look: None) -> Outcome:
        """Warm up, roll out, and go on until the rollout has ended and every device has what it should have.

        Raises:
            DeviceError: a real client disagrees with the model about what it should run.
        """
        while self.now < scenario.warmup_hours:
            self._live()
        started = self.now
        self.begin(moment(started))
        looks: list[Look] = []
        state: State = "holding"
        while state == "holding" and self.now - started < scenario.days * 24:
            policy = self._live()
            decision = self.watch(moment(self.now))
            on_new = int((self.fleet.holds == NEW).sum())
            looks.append(Look(self.now - started, policy, decision, on_new, self.reports))
            on_look(looks[-1])
            state = _ENDS.get(decision.action, "holding")
        decided = self.now - started
        times = self._settle(state) if state != "holding" else []
        astray = self._astray(self.clients.policy(moment(self.now)))
        return Outcome(
            state=state,
            decided_hours=decided,
            settled_hours=times[-1] - started if times and not astray else None,
            median_hours=times[len(times) // 2] - started if times else None,
            astray=[self.fleet.ids[number] for number in astray],
            refused=int(self.fleet.refused.sum()),
            real=self.clients.count,
            looks=looks,
            reports=self.reports,
        )

    def _live(self) -> ChannelPolicy:
        """One step of everybody: follow the policy that stands at its beginning, use, report at its end."""
        before, self.now = self.now, self.now + self.hours
        fleet = self.fleet
        fleet.leave(before, self.hours)
        policy = self._follow(before)
        fleet.use(self.now, self.hours)
        for number in np.flatnonzero(fleet.refused & (fleet.holds == NEW)):
            if number < self.clients.count:
                self.clients.crash_loop(int(number), moment(self.now))
        self._post(fleet.reporting(self.now), self.now)
        fleet.leave_loops(self.now)
        return policy

    def _follow(self, now: float) -> ChannelPolicy:
        """Those whose sync is due take what the policy gives them; what they counted under the other file is posted."""
        fleet = self.fleet
        policy = self.clients.policy(moment(now))
        asking = fleet.asking(now)
        wanted = self._wanted(policy)[asking]
        changing = fleet.swaps(asking, wanted)
        self._post(changing[fleet.counts[changing].any(axis=1)], now)
        fleet.follow(asking, wanted, policy.generation, now)
        for number in asking[asking < self.clients.count]:
            self._check(int(number), self.clients.sync(int(number), moment(now)))
        return policy

    def _wanted(self, policy: ChannelPolicy) -> np.ndarray:
        """What the policy gives each device: OLD or NEW."""
        files = {self.channel.old: OLD, self.channel.new: NEW}
        stable = np.full(self.fleet.devices, files[policy.stable])
        if not policy.canary_ppm:
            return stable
        return np.where(self.fleet.in_canary(policy.salt, policy.canary_ppm), files[policy.canary], stable)

    def _check(self, number: int, runs: str | None) -> None:
        expected = (self.channel.old, self.channel.new)[self.fleet.holds[number]]
        if runs != expected:
            raise DeviceError(
                f"device {self.fleet.ids[number]}: the real client runs {runs}, the simulation expects {expected}"
            )

    def _post(self, which: np.ndarray, now: float) -> None:
        self.reports += self.collector.post(self.fleet.reports(which, now, self.channel))

    def _astray(self, policy: ChannelPolicy) -> list[int]:
        """Devices that hold another file than the policy gives them, but for those that refused it themselves."""
        wanted = np.where(self.fleet.refused, OLD, self._wanted(policy))
        return [int(number) for number in np.flatnonzero(self.fleet.holds != wanted)]

    def _settle(self, state: State) -> list[float]:
        """Nothing is decided any more: devices sync when they are back. Returns when each that changed did, sorted."""
        fleet = self.fleet
        limit = self.now + 2 * fleet.population.sync_hours + 5 * fleet.population.away_hours
        times: list[float] = []
        policy = self.clients.policy(moment(self.now))
        while (missing := len(self._astray(policy))) and self.now < limit:
            self.now += self.hours
            policy = self._follow(self.now)
            times += [self.now] * (missing - len(self._astray(policy)))
        return times


_ENDS: dict[str, State] = {"finish": "complete", "roll_back": "rolled_back"}
