import json
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketloop.contracts.delivery import LATENCY_BOUNDS_MS, TelemetryReport, bucket
from pocketloop.device.fleet_model import NEW, OLD, Channel, Fleet
from pocketloop.device.fleet_scenarios import Effect, Population

CHANNEL = Channel("functions", "a" * 64, "b" * 64, "c" * 64)
HOURS = 6.0
STEADY = Population(leaves_a_day=0)


def lived(fleet: Fleet, wanted: int, steps: int, start: float = 0.0) -> list[dict[str, Any]]:
    """Everybody follows `wanted` for some steps; returns all reports."""
    found: list[dict[str, Any]] = []
    now = start
    for _ in range(steps):
        now += HOURS
        fleet.leave(now, HOURS)
        asking = fleet.asking(now)
        fleet.follow(asking, np.full(len(asking), wanted), 1, now - HOURS)
        fleet.use(now, HOURS)
        found += [json.loads(text) for text in fleet.reports(fleet.reporting(now), now, CHANNEL)]
        fleet.leave_loops(now)
    return found


def total(reports: list[dict[str, Any]], name: str) -> int:
    return sum(report[name] for report in reports)


def test_a_seed_gives_the_same_fleet_and_the_same_reports() -> None:
    first, second, other = (lived(Fleet(Population(), [], 50, seed), OLD, 12) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_every_report_is_one_that_the_collector_takes() -> None:
    effects = [Effect(crashes=200, latency=1.6, locale="de-DE")]
    reports = lived(Fleet(Population(), effects, 60, 3), NEW, 16)
    assert len(reports) > 200
    for report in reports:
        checked = TelemetryReport.model_validate(report)
        assert checked.end > checked.start
        assert sum(checked.latency) == 3 * checked.sessions
        assert checked.thumbs_up + checked.thumbs_down <= checked.sessions
    assert len({report["report_id"] for report in reports}) == len(reports)


def test_rates_are_those_of_the_population() -> None:
    people = Population(leaves_a_day=0, crash_shape=5, concentration=50, sessions_spread=0.2)
    reports = lived(Fleet(people, [], 3000, 4), OLD, 20)
    sessions = total(reports, "sessions")
    thumbs = total(reports, "thumbs_up") + total(reports, "thumbs_down")
    assert sessions / 3000 / 5 == pytest.approx(3, rel=0.1)
    assert total(reports, "crashes") / sessions == pytest.approx(people.crashes_a_session, rel=0.15)
    assert total(reports, "fallbacks") / sessions == pytest.approx(people.fallbacks, rel=0.1)
    assert thumbs / sessions == pytest.approx(people.rated, rel=0.1)
    assert total(reports, "thumbs_down") / thumbs == pytest.approx(people.thumbs_down, rel=0.1)
    latency = np.sum([report["latency"] for report in reports], axis=0)
    median = LATENCY_BOUNDS_MS[int(np.searchsorted(np.cumsum(latency), latency.sum() / 2))]
    assert median == 400 or median == 800  # the population's median lies on that bound


def test_few_devices_cause_most_crashes_and_hold_most_sessions() -> None:
    reports = lived(Fleet(STEADY, [], 4000, 5), OLD, 40)
    for name, share in (("crashes", 0.5), ("sessions", 0.3)):
        counts: Counter[str] = Counter()
        for report in reports:
            counts[report["device_id"]] += report[name]
        ordered = sorted(counts.values(), reverse=True)
        assert sum(ordered[: len(ordered) // 10]) > share * sum(ordered)


@pytest.mark.parametrize(
    ("effect", "name", "per"),
    [
        (Effect(crashes=3), "crashes", "sessions"),
        (Effect(fallbacks=3), "fallbacks", "sessions"),
        (Effect(thumbs_down=3), "thumbs_down", "sessions"),
    ],
)
def test_an_effect_changes_what_it_names_on_the_new_file_only(effect: Effect, name: str, per: str) -> None:
    people = Population(leaves_a_day=0, crash_shape=20, concentration=100)
    rates = {}
    for wanted in (OLD, NEW):
        reports = [
            r for r in lived(Fleet(people, [effect], 2000, 6), wanted, 16) if r["digest"] == (CHANNEL[2 + wanted])
        ]
        rates[wanted] = total(reports, name) / total(reports, per)
    share = {"fallbacks": people.fallbacks, "thumbs_down": people.thumbs_down}.get(name, 0.0)
    assert rates[NEW] / rates[OLD] == pytest.approx(3 / (1 - share + 3 * share), rel=0.2)


def test_slower_answers_move_the_histogram_by_the_factor() -> None:
    slow = {}
    for wanted in (OLD, NEW):
        fleet = Fleet(Population(leaves_a_day=0, latency_spread=0, latency_ms=1000), [Effect(latency=1.6)], 500, 7)
        reports = [r for r in lived(fleet, wanted, 16) if r["digest"] == CHANNEL[2 + wanted]]
        latency = np.sum([report["latency"] for report in reports], axis=0)
        slow[wanted] = latency[LATENCY_BOUNDS_MS.index(1600) + 1 :].sum() / latency.sum()
    assert slow[OLD] == pytest.approx(0.174, abs=0.02)  # 1 - Phi(ln 1.6 / 0.5)
    assert slow[NEW] == pytest.approx(0.5, abs=0.02)


def test_an_effect_on_a_segment_leaves_the_others_alone() -> None:
    fleet = Fleet(STEADY, [Effect(crashes=100, app_version="4.1.0")], 2000, 8)
    reports = lived(fleet, NEW, 12)
    hit = [r for r in reports if r["app_version"] == "4.1.0"]
    rest = [r for r in reports if r["app_version"] != "4.1.0"]
    assert total(hit, "crashes") / total(hit, "sessions") > 0.1
    assert total(rest, "crashes") / total(rest, "sessions") < 0.01


def test_a_novelty_wears_off_with_the_age_of_the_file_on_each_device() -> None:
    effects = [Effect(crashes=0, until_hours=72), Effect(crashes=20, from_hours=72)]
    fleet = Fleet(Population(leaves_a_day=0, crash_shape=5), effects, 1000, 9)
    lived(fleet, NEW, 2)
    assert (fleet.holds == NEW).all()
    early, late = lived(fleet, NEW, 8, 12.0), lived(fleet, NEW, 12, 84.0)
    assert total(early, "crashes") == 0
    assert total(late, "crashes") / total(late, "sessions") == pytest.approx(0.08, rel=0.3)


def test_a_crash_that_ends_telemetry_is_never_reported_and_the_old_file_brings_the_device_back() -> None:
    effect = Effect(crashes=50, crash_ends_telemetry=True)
    fleet = Fleet(Population(leaves_a_day=0, crash_shape=5), [effect], 1000, 10)
    reports = [r for r in lived(fleet, NEW, 16) if r["digest"] == CHANNEL.new]
    assert total(reports, "crashes") == 0
    assert fleet.mute.sum() > 300
    lived(fleet, OLD, 2, 96.0)
    assert not fleet.mute.any()


def test_a_crash_loop_takes_the_device_back_for_good_and_counts_a_revert() -> None:
    fleet = Fleet(Population(leaves_a_day=0, sessions_spread=0), [Effect(crashes=1000)], 300, 11)
    reports = lived(fleet, NEW, 24)
    assert fleet.refused.sum() > 50
    assert total(reports, "reverts") == fleet.refused.sum()
    assert (fleet.holds[fleet.refused] == OLD).all()


def test_a_device_that_is_away_neither_asks_nor_reports_nor_works() -> None:
    fleet = Fleet(Population(leaves_a_day=1), [], 200, 12)
    fleet.away_until[:] = 1000
    assert lived(fleet, NEW, 8) == []
    assert (fleet.holds == OLD).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), wanted=st.lists(st.sampled_from([OLD, NEW]), min_size=1, max_size=6))
def test_whatever_the_policies_every_session_is_reported_once(seed: int, wanted: list[int]) -> None:
    fleet = Fleet(Population(), [Effect(crashes=100)], 20, seed)
    now, used, reports = 0.0, 0, []
    for choice in wanted:
        now += HOURS
        fleet.leave(now, HOURS)
        asking = fleet.asking(now)
        leaving = fleet.swaps(asking, np.full(len(asking), choice))
        reports += [json.loads(text) for text in fleet.reports(leaving, now - HOURS, CHANNEL)]
        fleet.follow(asking, np.full(len(asking), choice), 1, now - HOURS)
        before = fleet.counts[:, 0].sum()
        fleet.use(now, HOURS)
        used += fleet.counts[:, 0].sum() - before
        reports += [json.loads(text) for text in fleet.reports(fleet.reporting(now), now, CHANNEL)]
        fleet.leave_loops(now)
    reports += [json.loads(text) for text in fleet.reports(np.arange(20), now, CHANNEL)]
    assert total(reports, "sessions") == used
    assert fleet.counts.sum() == 0
    spans: dict[str, list[tuple[str, str]]] = {}
    for report in reports:
        spans.setdefault(report["device_id"], []).append((report["start"], report["end"]))
    for known in spans.values():
        assert all(one[1] <= two[0] for one, two in pairwise(known))


def test_buckets_are_the_contracts() -> None:
    fleet = Fleet(STEADY, [], 300, 13)
    chosen = fleet.in_canary("salt", 200_000)
    assert chosen.tolist() == [bucket("salt", device) < 200_000 for device in fleet.ids]
