import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.contracts.loading import load_ladder
from pocketloop.contracts.rollout import Guardrail, Ladder, Rung
from pocketloop.delivery.plan import measure, plan
from pocketloop.delivery.statistics import Counts, noninferiority
from pocketloop.delivery.telemetry import write_reports

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def ladder(*rungs: Rung, **changes: object) -> Ladder:
    made = {"rungs": [*rungs, Rung(percent=100)], "guardrails": [Guardrail(metric="crashes", max_ratio=1.5)]}
    return Ladder(rollout="test", **(made | changes))


def test_a_larger_fleet_and_a_looser_margin_never_take_longer() -> None:
    loose = ladder(Rung(percent=10, min_hours=1, loosen=2))
    tight = ladder(Rung(percent=10, min_hours=1))
    days = [plan(tight, size, "a guess").days for size in (10_000, 20_000, 100_000, 10**6)]
    assert all(a is not None and b is not None and a >= b for a, b in pairwise(days))
    assert plan(loose, 20_000, "a guess").days < plan(tight, 20_000, "a guess").days  # type: ignore[operator]


def test_the_minimum_hold_is_kept_and_named() -> None:
    made = plan(ladder(Rung(percent=50, min_hours=72)), 10**6, "a guess")
    assert [(rung.days, rung.limited_by) for rung in made.rungs] == [(3.0, "hold"), (0.0, "hold")]
    assert (made.days, made.late_days, made.source, made.daily_devices) == (3.0, 3.0, "a guess", 10**6)


def test_a_fleet_that_is_too_small_is_told_so_and_what_stops_it() -> None:
    standard = load_ladder("standard")
    made = plan(standard, 300, "a guess")
    assert (made.days, made.late_days) == (None, None)
    assert {rung.limited_by for rung in made.rungs[:-1]} == {"min_devices"}
    rare = plan(ladder(Rung(percent=10)), 2000, "a guess", {"crashes": 0.005})
    assert (rare.days, rare.rungs[0].limited_by) == (None, "crashes")
    assert plan(standard, 200_000, "a guess").days is not None


def test_silence_cannot_certify_before_it_can_be_seen() -> None:
    made = plan(ladder(Rung(percent=50, min_hours=1), guardrails=[Guardrail(metric="silent")]), 10**6, "a guess")
    assert (made.rungs[0].days, made.rungs[0].limited_by) == (pytest.approx(49 / 24), "silent")


def test_what_almost_never_happens_is_planned_by_its_negligible_share() -> None:
    made = plan(ladder(Rung(percent=50, min_hours=1)), 10_000, "a guess", {"crashes": 0.0001})
    assert made.rungs[0].days == pytest.approx(25 / 24)


def test_the_planned_days_are_the_mean_that_simulated_rollouts_need() -> None:
    devices, daily, runs = 1000, 0.02, 200
    made = plan(ladder(Rung(percent=10, min_hours=1)), devices * 10, "a guess", {"crashes": daily})
    planned = made.rungs[0].days
    assert planned is not None
    draw, hazard, hours = np.random.default_rng(0), 1 - (1 - daily) ** (1 / 24), 28 * 24
    left = np.full((2, runs), devices)
    out = np.zeros((4, runs, 1, hours))
    for hour in range(hours):
        new = draw.binomial(left, hazard)
        out[:, :, 0, hour] = new[0], new.sum(axis=0), left[0], left.sum(axis=0)
        left = left - new
    certified = noninferiority(Counts(*out), 1.5) >= math.log(20)
    needed = np.where(certified.any(axis=1), certified.argmax(axis=1) + 1, hours) / 24
    assert planned == pytest.approx(float(needed.mean()), rel=0.2)
    assert (needed <= planned).mean() > 0.5
    assert made.late_days is not None
    assert (needed <= made.late_days).mean() == pytest.approx(0.9, abs=0.07)


def test_a_fleets_own_shares_are_measured(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for day in range(6, -1, -1):
        end = NOW - timedelta(days=day)
        reports = [
            TelemetryReport(
                report_id=f"{number}-{day}",
                device_id=f"d{number}",
                start=end - timedelta(days=1),
                end=end,
                adapter="functions",
                base_digest="b" * 64,
                sessions=5,
                crashes=int(draw.random() < 0.05),
            )
            for number in range(1000)
        ]
        write_reports(tmp_path, reports, end)
    watched = ladder(Rung(percent=10), guardrails=[Guardrail(metric="crashes"), Guardrail(metric="silent")])
    shares = measure(watched, tmp_path, "functions", "b" * 64, NOW)
    assert shares["crashes"] == pytest.approx(0.05, rel=0.35)
    assert shares["silent"] == 0.0
    assert measure(watched, tmp_path, "other", "b" * 64, NOW) == {}
