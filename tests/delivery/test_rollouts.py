import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketloop.contracts.delivery import AdapterFacts, ChannelPolicy, TelemetryReport
from pocketloop.contracts.errors import ConfigError, DeliveryError
from pocketloop.contracts.rollout import Guardrail, Ladder, Promotion, Rollout, Rung
from pocketloop.delivery.rollouts import RolloutStore, roll_back_now, start_rollout, watch_once
from pocketloop.delivery.telemetry import write_reports

START = datetime(2026, 11, 1, tzinfo=UTC)
OLD, NEW, NEWER, BASE = "0" * 64, "a" * 64, "c" * 64, "b" * 64
LADDER = Ladder(
    rollout="test",
    rungs=[Rung(percent=20, min_hours=24, loosen=2), Rung(percent=50, min_hours=24), Rung(percent=100, min_hours=0)],
    guardrails=[Guardrail(metric="crashes", max_ratio=2), Guardrail(metric="silent", max_ratio=2, negligible=0.03)],
    min_devices=50,
)


class Killed(BaseException):
    """The process ends here."""


class Channel:
    """A channel in memory, which can be killed before or after it takes a policy."""

    def __init__(self) -> None:
        self.now: ChannelPolicy | None = ChannelPolicy(
            adapter="functions", base_digest=BASE, generation=7, stable=OLD, updated=START
        )
        self.digests = [OLD, NEW, NEWER]
        self.killed = ""
        self.refuses = False
        self.history: list[ChannelPolicy] = []

    def policy(self, adapter: str, base_digest: str) -> ChannelPolicy | None:
        return self.now

    def set_policy(self, policy: ChannelPolicy) -> None:
        if self.killed == "before":
            raise Killed
        if self.refuses:
            raise DeliveryError("refused")
        assert self.now is None or policy.generation == self.now.generation + 1
        assert {policy.stable, policy.canary} <= {None, *self.digests}
        self.now = policy
        self.history.append(policy)
        if self.killed == "after":
            raise Killed

    def approved(self) -> dict[str, AdapterFacts]:
        facts = {"adapter": "functions", "version": "1", "released": "1", "bundle_digest": BASE, "base_digest": BASE}
        return {digest: AdapterFacts(**facts, task="chat") for digest in self.digests}

    @property
    def serves(self) -> tuple[str | None, str | None, int]:
        assert self.now is not None
        return self.now.stable, self.now.canary, self.now.canary_ppm


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def store(tmp_path: Path) -> RolloutStore:
    return RolloutStore(tmp_path / "rollouts")


@pytest.fixture
def telemetry(tmp_path: Path) -> Path:
    return tmp_path / "telemetry"


def promotion(digest: str = NEW, version: str = "2") -> Promotion:
    return Promotion(
        adapter="functions",
        state="published",
        detail="",
        version=version,
        released=version,
        digest=digest,
        base_digest=BASE,
    )


def start(channel: Channel, store: RolloutStore, ladder: Ladder = LADDER, now: datetime = START) -> Rollout:
    return start_rollout(channel, store, ladder, promotion(), None, now)


def live(channel: Channel, telemetry: Path, day: float, days: float, crash: float = 0.02, canary: float = 1.0) -> None:
    """1,000 devices that follow the channel and report twice a day, between two moments in days since the start."""
    draw = np.random.default_rng(1000 + int(day * 100))
    for step in np.arange(day, day + days, 0.5):
        reports = []
        end = START + timedelta(days=float(step) + 0.5)
        for number in range(1000):
            device = f"d{number}"
            wanted = channel.now.wanted(device) if channel.now else None
            rate = crash / 2 * (canary if wanted == NEW else 1)
            reports.append(
                TelemetryReport.model_construct(
                    report_id=f"{device}-{step}",
                    device_id=device,
                    start=end - timedelta(days=0.5),
                    end=end,
                    app_version="1",
                    locale="",
                    adapter="functions",
                    digest=wanted,
                    base_digest=BASE,
                    sessions=4,
                    crashes=int(draw.random() < rate),
                )
            )
        write_reports(telemetry, reports, end)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def run(
    channel: Channel, store: RolloutStore, telemetry: Path, rollout: Rollout, days: float, **behaviour: float
) -> Iterator[Any]:
    for step in np.arange(0, days, 0.5):
        live(channel, telemetry, float(step), 0.5, **behaviour)
        decision = watch_once(channel, store, rollout, telemetry, day(float(step) + 0.5))
        yield decision
        if rollout.state != "running":
            return


def test_a_good_adapter_climbs_every_rung_and_becomes_stable(channel: Channel, store: RolloutStore, telemetry: Path):
    live(channel, telemetry, -2, 2)
    rollout = start(channel, store)
    assert channel.serves == (OLD, NEW, 200_000)
    assert channel.now is not None
    assert channel.now.salt == rollout.rollout_id
    actions = [d.action for d in run(channel, store, telemetry, rollout, 28)]
    assert [action for action in actions if action != "hold"] == ["widen", "finish"]
    assert (rollout.state, rollout.rung, len(rollout.rungs)) == ("complete", 2, 3)
    assert channel.serves == (NEW, None, 0)
    assert [p.canary_ppm for p in channel.history] == [200_000, 500_000, 0]
    assert store.load(rollout.rollout_id) == rollout
    assert store.running("functions", BASE) is None


def test_a_bad_adapter_is_taken_back_to_what_was_before(channel: Channel, store: RolloutStore, telemetry: Path) -> None:
    live(channel, telemetry, -2, 2)
    rollout = start(channel, store)
    *_, last = run(channel, store, telemetry, rollout, 14, canary=6)
    assert (last.action, last.why, last.ppm_after) == ("roll_back", "harm", 0)
    assert channel.serves == (OLD, None, 0)
    assert rollout.state == "rolled_back"
    with pytest.raises(DeliveryError, match="was taken back on 2026-11-"):
        start(channel, store, now=day(20))


@pytest.mark.parametrize("killed", ["before", "after"])
def test_a_watcher_killed_around_the_policy_leaves_a_state_that_the_next_one_finishes(
    channel: Channel, store: RolloutStore, telemetry: Path, killed: str
) -> None:
    live(channel, telemetry, -2, 2)
    rollout = start(channel, store)
    live(channel, telemetry, 0, 3, canary=20)
    channel.killed = killed
    with pytest.raises(Killed):
        watch_once(channel, store, rollout, telemetry, day(3))
    assert store.load(rollout.rollout_id).state == "running"
    channel.killed = ""
    again = watch_once(channel, store, rollout, telemetry, day(3.1))
    assert (again.action, rollout.state) == ("roll_back", "rolled_back")
    assert again.at == (day(3) if killed == "after" else day(3.1))
    assert channel.serves == (OLD, None, 0)
    assert [p.canary_ppm for p in channel.history] == [200_000, 0]
    assert not list(store.folder.glob("*.next.json"))


@pytest.mark.parametrize("killed", ["before", "after"])
def test_a_start_that_was_killed_is_finished_by_the_next_look_or_start(
    channel: Channel, store: RolloutStore, telemetry: Path, killed: str
) -> None:
    channel.killed = killed
    with pytest.raises(Killed):
        start(channel, store)
    channel.killed = ""
    [rollout] = store.all()
    watch_once(channel, store, rollout, telemetry, day(0.1))
    assert channel.serves == (OLD, NEW, 200_000)
    assert start(channel, store, now=day(0.2)).rollout_id == rollout.rollout_id
    assert len(channel.history) == 1


def test_the_same_look_twice_decides_once(channel: Channel, store: RolloutStore, telemetry: Path) -> None:
    live(channel, telemetry, -2, 2)
    rollout = start(channel, store)
    live(channel, telemetry, 0, 3, canary=20)
    first = watch_once(channel, store, rollout, telemetry, day(3))
    assert watch_once(channel, store, rollout, telemetry, day(3)) == first
    assert watch_once(channel, store, rollout, telemetry, day(9)) == first
    assert (len(rollout.decisions), len(channel.history)) == (2, 2)


def test_a_policy_that_cannot_be_set_leaves_the_decision_to_the_next_look(
    channel: Channel, store: RolloutStore, telemetry: Path
) -> None:
    live(channel, telemetry, -2, 2)
    rollout = start(channel, store)
    live(channel, telemetry, 0, 3, canary=20)
    channel.refuses = True
    with pytest.raises(DeliveryError, match="refused"):
        watch_once(channel, store, rollout, telemetry, day(3))
    assert rollout.state == "running"
    channel.refuses = False
    assert watch_once(channel, store, rollout, telemetry, day(3.5)).action == "roll_back"


def test_an_adapter_that_is_revoked_while_it_is_rolled_out_goes_back(
    channel: Channel, store: RolloutStore, telemetry: Path
) -> None:
    rollout = start(channel, store)
    channel.digests = [OLD, NEWER]
    assert watch_once(channel, store, rollout, telemetry, day(1)).why == "revoked"
    assert channel.serves == (OLD, None, 0)


def test_a_previous_file_that_was_revoked_is_not_served_again(channel: Channel, store: RolloutStore, telemetry: Path):
    rollout = start(channel, store)
    channel.digests = [NEW]
    assert channel.now is not None
    channel.now = channel.now.model_copy(update={"stable": None, "generation": 9})
    assert watch_once(channel, store, rollout, telemetry, day(1)).action == "hold"
    assert channel.serves == (None, NEW, 200_000)
    roll_back_now(channel, store, rollout, "enough", day(2))
    assert channel.serves == (None, None, 0)


def test_somebody_elses_change_of_the_channel_is_reported_and_not_undone(
    channel: Channel, store: RolloutStore, telemetry: Path
) -> None:
    rollout = start(channel, store)
    assert channel.now is not None
    channel.now = channel.now.model_copy(
        update={"stable": NEWER, "canary": None, "canary_ppm": 0, "salt": "", "generation": 9}
    )
    with pytest.raises(DeliveryError, match="was changed while rollout"):
        watch_once(channel, store, rollout, telemetry, day(1))
    assert channel.serves == (NEWER, None, 0)


def test_a_person_takes_back_a_running_and_a_finished_rollout(channel: Channel, store: RolloutStore) -> None:
    rollout = start(channel, store)
    decision = roll_back_now(channel, store, rollout, "users complain", day(1))
    assert (decision.why, decision.reason, rollout.state) == ("by_hand", "users complain", "rolled_back")
    assert channel.serves == (OLD, None, 0)
    with pytest.raises(DeliveryError, match="already taken back"):
        roll_back_now(channel, store, rollout, "again", day(2))
    whole = LADDER.model_copy(update={"rungs": [Rung(percent=100)]})
    finished = start_rollout(channel, store, whole, promotion(NEWER, "3"), None, day(3))
    assert (finished.state, channel.serves) == ("complete", (NEWER, None, 0))
    roll_back_now(channel, store, finished, "users complain", day(4))
    assert channel.serves == (OLD, None, 0)


def test_a_finished_rollout_that_another_has_followed_is_not_taken_back(channel: Channel, store: RolloutStore) -> None:
    whole = LADDER.model_copy(update={"rungs": [Rung(percent=100)]})
    first = start(channel, store, whole)
    second = start_rollout(channel, store, LADDER, promotion(NEWER, "3"), None, day(1))
    with pytest.raises(DeliveryError, match=f"take back {second.rollout_id}, which runs"):
        roll_back_now(channel, store, first, "late", day(2))


def test_what_cannot_start_says_why(channel: Channel, store: RolloutStore) -> None:
    with pytest.raises(DeliveryError, match="not approved"):
        start_rollout(channel, store, LADDER, promotion("d" * 64), None, START)
    with pytest.raises(DeliveryError, match="serves already"):
        start_rollout(channel, store, LADDER, promotion(OLD), None, START)
    with pytest.raises(DeliveryError, match="not published"):
        start_rollout(channel, store, LADDER, promotion().model_copy(update={"digest": None}), None, START)
    with pytest.raises(ConfigError, match="slow_ms"):
        start(channel, store, LADDER.model_copy(update={"slow_ms": 7}))
    start(channel, store)
    with pytest.raises(DeliveryError, match="must wait: rollout functions-20261101-000000-aaaaaaaa of version 2 runs"):
        start_rollout(channel, store, LADDER, promotion(NEWER, "3"), None, day(1))


def test_the_first_adapter_of_a_channel_is_compared_with_the_base_alone(channel: Channel, store: RolloutStore) -> None:
    channel.now = None
    rollout = start(channel, store)
    assert (rollout.previous, channel.serves) == (None, (None, NEW, 200_000))


def test_holds_that_repeat_within_hours_keep_only_the_newest_evidence(
    channel: Channel, store: RolloutStore, telemetry: Path
) -> None:
    rollout = start(channel, store)
    for hour in range(1, 25):
        assert watch_once(channel, store, rollout, telemetry, START + timedelta(hours=hour)).action == "hold"
    kept = [(d.at - START).total_seconds() / 3600 for d in rollout.decisions if d.why == "too_few"]
    assert kept[-1] == 23
    assert len(kept) <= 5


def test_a_damaged_record_is_named(channel: Channel, store: RolloutStore) -> None:
    rollout = start(channel, store)
    path = store.folder / f"{rollout.rollout_id}.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"rung": "first"}))
    with pytest.raises(DeliveryError, match=f"{rollout.rollout_id}.json: not a rollout's record"):
        store.all()
    with pytest.raises(DeliveryError, match="no rollout absent"):
        store.load("absent")


def test_what_was_decided_and_not_told_yet_is_told_once_and_repeated_holds_never(
    channel: Channel, store: RolloutStore, telemetry: Path
) -> None:
    rollout = start(channel, store)
    assert [d.action for d in store.untold(rollout)] == ["start"]
    store.mark_told(rollout)
    assert not store.untold(rollout)
    live(channel, telemetry, 0, 1)
    for hours in (6, 12, 20):
        watch_once(channel, store, rollout, telemetry, day(hours / 24))
    held = store.untold(rollout)
    assert held
    assert all(d.action == "hold" for d in held)
    assert len(held) == len({d.why for d in held})
    store.mark_told(rollout)
    roll_back_now(channel, store, rollout, "by a person", day(0.9))
    assert [d.action for d in RolloutStore(store.folder).untold(rollout)] == ["roll_back"]
