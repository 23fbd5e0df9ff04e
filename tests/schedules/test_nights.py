"""Nights with a fake clock and scripted runs: what is due, what is logged, and who is told."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pocketloop.contracts.home import Home
from pocketloop.contracts.schedules import Night, Outcome, Schedule
from pocketloop.schedules.holding import held
from pocketloop.schedules.night import run_night
from pocketloop.schedules.store import ScheduleStore

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
QUIET = Outcome(result="nothing new", new=0)
FAILED = Outcome(result="failed", step="scrub", reason="no disk", more="pocketloop schedule log functions --output")


def schedule(**changed: object) -> Schedule:
    values = {"adapter": "functions", "recipe": "functions", "cron": "0 3 * * *", "tz": "UTC", "if_new": 1}
    return Schedule.model_validate({**values, "starter": "crontab", "since": START, **changed})


def night_of(day: int, hour: int = 3) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


class World:
    """A home, a script of outcomes, and an inbox that may be closed."""

    def __init__(self, root: Path) -> None:
        self.store = ScheduleStore(Home(root))
        self.store.put(schedule())
        self.outcome: Outcome | Callable[[], Outcome] = QUIET
        self.ran: list[Path] = []
        self.inbox: list[Night] = []
        self.refuses = ""

    def work(self, _: Schedule, output: Path) -> Outcome:
        self.ran.append(output)
        return self.outcome if isinstance(self.outcome, Outcome) else self.outcome()

    def take(self, _: str, night: Night) -> str:
        if not self.refuses:
            self.inbox.append(night)
        return self.refuses

    def night(self, now: datetime, force: bool = False) -> Night | None:
        return run_night(self.store, self.store.get("functions"), now, self.work, {"webhook": self.take}, force)

    def log(self) -> list[Night]:
        return self.store.nights("functions")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_night_runs_once_however_often_the_timer_fires(world: World) -> None:
    assert world.night(night_of(2, hour=2)) is None
    ran = world.night(night_of(2))
    assert ran is not None and ran.outcome == QUIET and ran.seconds is not None
    assert world.night(night_of(2)) is None
    assert world.night(night_of(2, hour=23)) is None
    assert len(world.ran) == len(world.log()) == 1


def test_missed_nights_are_caught_up_once_however_many(world: World) -> None:
    world.night(night_of(2))
    caught_up = world.night(night_of(7, hour=9))
    assert caught_up is not None and (caught_up.due, caught_up.missed) == (night_of(7), 4)
    assert world.night(night_of(7, hour=10)) is None
    next_night = world.night(night_of(8))
    assert next_night is not None and next_night.missed == 0
    assert len(world.ran) == 3


def test_nights_of_a_pause_are_not_caught_up(world: World) -> None:
    world.night(night_of(2))
    world.store.put(schedule(paused=True))
    assert world.night(night_of(4)) is None
    world.store.put(schedule(since=night_of(6, hour=12)))
    assert world.night(night_of(6, hour=13)) is None
    resumed = world.night(night_of(7))
    assert resumed is not None and resumed.missed == 0
    assert len(world.ran) == 2


def test_a_night_by_day_does_not_stand_for_the_next_one(world: World) -> None:
    assert world.night(night_of(2, hour=1), force=True) is not None
    assert world.night(night_of(2)) is not None
    assert world.night(night_of(2), force=True) is not None
    assert [night.due for night in world.log()] == sorted({night.due for night in world.log()})


def test_a_night_that_finds_the_adapter_taken_is_skipped_and_says_by_whom(world: World) -> None:
    with held(world.store.home, "functions", "pocketloop train functions"):
        skipped = world.night(night_of(2))
    assert skipped is not None and skipped.outcome.result == "skipped"
    assert "`pocketloop train functions`" in skipped.outcome.reason
    assert not world.ran and not world.inbox
    assert world.night(night_of(3)) is not None


def test_two_timers_that_fire_at_once_run_one_night(world: World) -> None:
    barrier = Barrier(2)

    def fire(_: int) -> Night | None:
        barrier.wait()
        return world.night(night_of(2))

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(fire, range(2)))
    assert len(world.ran) == 1
    assert found.count(None) == 1


def test_a_failure_is_told_with_step_reason_and_what_shows_more(world: World) -> None:
    world.outcome = FAILED
    world.night(night_of(2))
    (told,) = world.inbox
    assert (told.outcome.step, told.outcome.reason, told.outcome.more) == (FAILED.step, FAILED.reason, FAILED.more)
    assert world.log()[0].untold == []


def test_a_notification_that_is_not_taken_is_tried_again_at_the_next_night_and_not_after(world: World) -> None:
    world.outcome, world.refuses = FAILED, "answered with 500"
    first = world.night(night_of(2))
    assert first is not None and first.outcome == FAILED and first.untold == ["webhook"]
    world.outcome, world.refuses = QUIET, ""
    for day in (3, 4):
        world.night(night_of(day))
    assert [night.due for night in world.inbox] == [night_of(2)]


def test_quiet_nights_and_passing_candidates_tell_nobody_and_a_failing_gate_does(world: World) -> None:
    for day, verdict in ((2, "pass"), (3, "inconclusive"), (4, "fail")):
        world.outcome = Outcome(result="candidate", verdict=verdict, version=str(day))
        world.night(night_of(day))
    assert [night.outcome.verdict for night in world.inbox] == ["inconclusive", "fail"]


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pocketloop.contracts.home import Home
from pocketloop.schedules.night import run_night
from pocketloop.schedules.store import ScheduleStore
store = ScheduleStore(Home(Path(sys.argv[1])))
def work(schedule, output):
    os.kill(os.getpid(), signal.SIGKILL)
run_night(store, store.get("functions"), datetime(2026, 11, 2, 3, tzinfo=UTC), work, {})
"""


def test_a_killed_night_is_written_down_as_failed_by_the_next_one_and_told(world: World) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(world.store.home.root)], check=False)
    assert killed.returncode == -9
    assert [night.outcome.result for night in world.log()] == ["running"]
    assert world.night(night_of(2, hour=4)) is None, "a night begins once"
    world.night(night_of(3))
    assert [night.outcome.result for night in world.log()] == ["failed", "nothing new"]
    assert "killed, or the machine went off" in world.inbox[0].outcome.reason


def test_outputs_of_the_last_thirty_nights_are_kept(world: World) -> None:
    def printing() -> Outcome:
        world.ran[-1].write_text("said")
        return QUIET

    world.outcome = printing
    for day in range(33):
        world.night(night_of(2) + timedelta(days=day))
    assert len(list(world.ran[-1].parent.iterdir())) == 30
    assert world.store.newest_output("functions") == world.ran[-1]


class Nights(RuleBasedStateMachine):
    """Days on and off, pauses and failures in any order: every due night that was not paused is covered once."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name))
        self.now = START
        self.paused = False
        self.pending = 0
        self.ran = 0
        self.covered = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(hours=st.integers(1, 80))
    def time_passes(self, hours: int) -> None:
        before, self.now = self.now, self.now + timedelta(hours=hours)
        nights = sum(before < START.replace(hour=3) + timedelta(days=day) <= self.now for day in range(500))
        self.pending += 0 if self.paused else nights

    @rule(outcome=st.sampled_from([QUIET, FAILED]))
    def the_timer_fires(self, outcome: Outcome) -> None:
        self.world.outcome = outcome
        night = self.world.night(self.now)
        assert (night is not None) == (self.pending > 0 and not self.paused)
        if night is not None:
            assert night.missed == self.pending - 1
            self.ran, self.pending = self.ran + 1, 0

    @precondition(lambda self: not self.paused)
    @rule()
    def pause(self) -> None:
        self.world.store.put(schedule(paused=True))
        self.paused, self.pending = True, 0

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        self.world.store.put(schedule(since=self.now))
        self.paused = False

    @invariant()
    def each_run_has_one_line(self) -> None:
        dues = [night.due for night in self.world.log()]
        assert len(self.world.ran) == self.ran == len(dues) == len(set(dues))


TestAnyOrderOfDays = Nights.TestCase
