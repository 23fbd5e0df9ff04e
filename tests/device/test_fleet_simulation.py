import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from pocketloop.contracts.delivery import MILLION, ChannelPolicy
from pocketloop.contracts.errors import ConfigError, DeviceError
from pocketloop.contracts.rollout import Decision, GuardrailEvidence
from pocketloop.device.fleet import Collector, Simulation, judged
from pocketloop.device.fleet_model import NEW, OLD, Channel, Clock, Fleet
from pocketloop.device.fleet_scenarios import Effect, Expected, Population, Scenario, load_scenario, scenario_names
from pocketloop.services import collector
from pocketloop.services.running import running

CHANNEL = Channel("functions", "a" * 64, "b" * 64, "c" * 64)
LADDER = [100_000, 500_000]


class Publisher:
    """A channel in memory, its rollout by a script of actions, and clients that believe what it says."""

    def __init__(self, clock: Clock, fleet: Fleet, script: list[str], real: int = 5) -> None:
        self.clock, self.fleet, self.script, self.count = clock, fleet, script, real
        self.rung = self.generation = 0
        self.served = self._policy(CHANNEL.old, 0)
        self.disks: dict[int, str | None] = dict.fromkeys(range(real), CHANNEL.old)

    def _policy(self, stable: str | None, ppm: int) -> ChannelPolicy:
        self.generation += 1
        return ChannelPolicy(
            adapter=CHANNEL.adapter,
            base_digest=CHANNEL.base_digest,
            generation=self.generation,
            stable=stable,
            canary=CHANNEL.new if ppm else None,
            canary_ppm=ppm,
            salt="salt" if ppm else "",
            updated=self.clock(),
        )

    def begin(self, now: datetime) -> None:
        self.served = self._policy(CHANNEL.old, LADDER[0])

    def watch(self, now: datetime) -> Decision:
        assert now == self.clock()
        action = self.script.pop(0) if self.script else "hold"
        before = self.served.canary_ppm
        if action == "widen":
            self.rung += 1
            self.served = self._policy(CHANNEL.old, LADDER[self.rung])
        elif action == "finish":
            self.served = self._policy(CHANNEL.new, 0)
        elif action == "roll_back":
            self.served = self._policy(CHANNEL.old, 0)
        return Decision(
            at=now,
            action=action,
            why="script",
            reason="the script says so",
            rung=self.rung,
            ppm_before=before,
            ppm_after=self.served.canary_ppm,
            guardrails=[evidence("crashes", 9.0)] if action == "roll_back" else [],
        )

    def policy(self) -> ChannelPolicy:
        return self.served

    def sync(self, number: int) -> str | None:
        gone_back = self.disks[number] == "gave up"
        self.disks[number] = "gave up" if gone_back else self.served.wanted(self.fleet.ids[number])
        return self.runs(number)

    def runs(self, number: int) -> str | None:
        held = self.disks[number]
        return CHANNEL.old if held == "gave up" else held

    def crash_loop(self, number: int) -> None:
        self.disks[number] = "gave up"


def evidence(metric: str, log_e_harm: float, segment: str = "") -> GuardrailEvidence:
    return GuardrailEvidence(
        metric=metric,
        segment=segment,
        canary_devices=100,
        control_devices=100,
        canary_affected=30,
        control_affected=3,
        log_e_harm=log_e_harm,
        harm_threshold=5.0,
        log_e_noninferior=0,
        noninferior_threshold=3,
        ratio_low=2,
        ratio_high=20,
    )


def scenario(state: str = "complete", **changes: object) -> Scenario:
    metrics = ["crashes"] if state == "rolled_back" else []
    return Scenario.model_validate(
        {"scenario": "test", "about": "", "warmup_hours": 24, "expect": {"state": state, "metrics": metrics}} | changes
    )


def lived(script: list[str], chosen: Scenario, devices: int = 400, change: Callable[[Publisher], None] | None = None):
    clock = Clock()
    fleet = Fleet(chosen.population, chosen.effects, devices, 1)
    publisher = Publisher(clock, fleet, script)
    if change:
        change(publisher)
    posted: list[str] = []

    class Posted(Collector):
        def post(self, reports: object) -> int:
            before = len(posted)
            posted.extend(reports)
            return len(posted) - before

    simulation = Simulation(
        fleet, CHANNEL, publisher, Posted("http://"), clock, begin=publisher.begin, watch=publisher.watch, hours=6
    )
    return simulation.run(chosen), fleet, [json.loads(text) for text in posted]


def test_after_a_rollback_every_device_is_back_on_the_old_file() -> None:
    chosen = scenario("rolled_back")
    outcome, fleet, _ = lived(["hold"] * 4 + ["widen"] + ["hold"] * 8 + ["roll_back"], chosen)
    assert outcome.state == "rolled_back"
    assert outcome.looks[-1].on_new > 100
    assert (fleet.holds == OLD).all()
    assert outcome.astray == []
    assert outcome.decided_hours < outcome.median_hours <= outcome.settled_hours
    assert judged(chosen.expect, outcome) == []


def test_after_completion_every_device_has_the_new_file() -> None:
    outcome, fleet, _ = lived(["hold"] * 4 + ["widen"] + ["hold"] * 8 + ["finish"], scenario())
    assert outcome.state == "complete"
    assert (fleet.holds == NEW).all()
    assert judged(Expected(state="complete"), outcome) == []


def test_a_device_that_went_back_by_itself_keeps_the_old_file_and_is_counted() -> None:
    chosen = scenario(effects=[Effect(crashes=400)])
    outcome, fleet, _ = lived(["widen"] + ["hold"] * 20 + ["finish"], chosen)
    assert outcome.refused > 20
    assert outcome.astray == []
    assert (fleet.holds[fleet.refused] == OLD).all()
    assert (fleet.holds == OLD).sum() == outcome.refused


def test_only_devices_of_the_canary_ever_run_the_new_file_before_completion() -> None:
    outcome, fleet, reports = lived(["widen"] + ["hold"] * 30, scenario("holding", days=7))
    assert outcome.state == "holding"
    assert outcome.astray == []
    chosen = {device for device, canary in zip(fleet.ids, fleet.in_canary("salt", LADDER[1]), strict=True) if canary}
    assert {report["device_id"] for report in reports if report["digest"] == CHANNEL.new} <= chosen
    assert {fleet.ids[n] for n in np.flatnonzero(fleet.holds == NEW)} <= chosen


def test_a_widened_rollout_is_not_one_that_held() -> None:
    outcome, _, _ = lived(["widen"], scenario("holding", days=2))
    assert any("widened" in problem for problem in judged(Expected(state="holding"), outcome))


def test_another_ending_than_expected_is_named() -> None:
    outcome, _, _ = lived(["roll_back"], scenario())
    assert "complete" in judged(Expected(state="complete"), outcome)[0]
    wrong = Expected(state="rolled_back", metrics=("slow",))
    assert "the evidence shows crashes" in judged(wrong, outcome)[0]
    part = Expected(state="rolled_back", metrics=("crashes",), segment="locale=de-DE")
    assert judged(part, outcome)
    assert judged(Expected(state="rolled_back", metrics=("crashes", "slow")), outcome) == []


def test_a_real_client_that_kept_the_wrong_file_is_found() -> None:
    class Stubborn(dict):
        def __getitem__(self, number: int) -> str | None:
            return CHANNEL.new if number == 2 else super().__getitem__(number)

    def change(publisher: Publisher) -> None:
        publisher.sync = lambda number: publisher.served.wanted(publisher.fleet.ids[number])
        publisher.disks = Stubborn(publisher.disks)

    outcome, fleet, _ = lived(["roll_back"], scenario("rolled_back"), change=change)
    assert outcome.astray == [fleet.ids[2]]
    assert outcome.settled_hours is None
    assert "1 devices hold another file" in judged(Expected(state="rolled_back", metrics=("crashes",)), outcome)[0]


def test_a_real_client_that_disagrees_with_the_model_stops_the_simulation() -> None:
    def change(publisher: Publisher) -> None:
        publisher.sync = lambda number: None

    with pytest.raises(DeviceError, match="the real client runs None"):
        lived([], scenario(days=2), change=change)


def test_a_report_that_the_collector_refuses_stops_the_simulation(tmp_path: Path) -> None:
    clock = Clock()
    app = collector.create_app(tmp_path, clock=clock)
    fleet = Fleet(Population(leaves_a_day=0), [], 50, 1)
    fleet.use(6, 6)
    everybody = np.arange(50)
    with running(app) as url:
        assert Collector(url).post(fleet.reports(everybody, 6, CHANNEL)) == 50
        with pytest.raises(DeviceError, match="422"):
            Collector(url).post(['{"schema":"telemetry/1"}'])


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_loads_and_names_a_ladder(name: str) -> None:
    from pocketloop.contracts.loading import load_ladder

    found = load_scenario(name)
    assert found.scenario == name
    metrics = {guardrail.metric for guardrail in load_ladder(found.ladder).guardrails}
    assert set(found.expect.metrics) <= metrics


def test_an_unknown_scenario_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="good"):
        load_scenario("nothing")


def test_a_scenario_that_names_a_locale_of_nobody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("scenario: mine\nabout: x\neffects: [{locale: xx-XX, crashes: 2}]\nexpect: {state: complete}\n")
    with pytest.raises(ConfigError, match="xx-XX"):
        load_scenario(str(path))


def test_a_hundred_percent_is_everybody_and_none_nobody() -> None:
    fleet = Fleet(Population(), [], 20, 1)
    assert fleet.in_canary("salt", MILLION).all()
    assert not fleet.in_canary("salt", 0).any()
