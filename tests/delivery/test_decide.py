from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketloop.contracts.rollout import Decision, Guardrail, Ladder, Rollout, Rung
from pocketloop.delivery.decide import counts, decide, judge
from pocketloop.delivery.observations import NEVER, Observations

START = datetime(2026, 11, 1, tzinfo=UTC)
LADDER = Ladder(
    rollout="test",
    rungs=[Rung(percent=10, loosen=2), Rung(percent=50), Rung(percent=100, min_hours=0)],
    guardrails=[Guardrail(metric="crashes"), Guardrail(metric="silent")],
)


def rollout(rung: int = 0, hours: int = 100, ladder: Ladder = LADDER) -> Rollout:
    """One that reached `rung` at once, and has been there for `hours`."""
    return Rollout(
        rollout_id="functions-1",
        adapter="functions",
        base_digest="b" * 64,
        version="1",
        released="1",
        digest="a" * 64,
        previous=None,
        ladder=ladder,
        started=START,
        rung=rung,
        rung_started=START,
        rungs=[START] * (rung + 1),
    )


def fleet(
    hours: int = 100,
    canary: int = 4000,
    control: int = 4000,
    crashes: tuple[float, float] = (0.05, 0.05),
    silent: tuple[float, float] = (0.05, 0.05),
    heard: tuple[float, float] = (1.0, 1.0),
    segment: Callable[[np.ndarray], np.ndarray] | None = None,
    seed: int = 0,
) -> Observations:
    """Devices that all entered at the start; each share is of (canary, control) devices, spread evenly over time."""
    draw, total = np.random.default_rng(seed), canary + control
    arm = np.arange(total) < canary
    never = np.full(total, NEVER)

    def some(shares: tuple[float, float], first: int) -> np.ndarray:
        hit = draw.random(total) < np.where(arm, *shares)
        return np.where(hit, draw.integers(first, max(hours, first + 1), total), NEVER)

    crashed = some(crashes, 0)
    went = some(silent, 48) if hours > 48 else never
    joined = np.zeros(total, dtype=int)
    told = np.where(draw.random(total) < np.where(arm, *heard), 0, NEVER)
    return Observations(
        hours=hours,
        canary=arm,
        cohort=np.zeros(total, dtype=int),
        entered=joined,
        heard=told,
        last=np.where(told == 0, hours - 1, -10),
        joined={"crashes": joined, "silent": joined},
        affected={"crashes": crashed, "silent": went},
        segments={"locale=de-DE": segment(np.arange(total))} if segment else {},
    )


def look(rollout: Rollout, observed: Observations) -> Decision:
    return decide(rollout, observed, START + timedelta(hours=observed.hours))


def test_a_canary_as_good_as_its_control_goes_one_rung_on() -> None:
    decision = look(rollout(), fleet())
    assert (decision.action, decision.why) == ("widen", "noninferior")
    assert (decision.ppm_before, decision.ppm_after) == (100_000, 500_000)
    assert decision.guardrails[0].noninferior


def test_the_last_widening_is_for_everybody_and_ends_it() -> None:
    decision = look(rollout(rung=1), fleet(canary=12_000, control=12_000))
    assert (decision.action, decision.ppm_before, decision.ppm_after) == ("finish", 500_000, 1_000_000)


def test_a_canary_that_crashes_more_devices_goes_back() -> None:
    decision = look(rollout(), fleet(crashes=(0.1, 0.05)))
    assert (decision.action, decision.why, decision.ppm_after) == ("roll_back", "harm", 0)
    assert decision.reason.startswith("crashes: 4")


HOLDS: dict[str, dict[str, Any]] = {
    "sample_ratio": {"heard": (0.8, 1.0)},
    "no_telemetry": {"heard": (0.0, 0.0), "crashes": (0, 0), "silent": (0, 0)},
    "too_few": {"canary": 60, "control": 60},
    "holding": {"hours": 20},
    "not_certified": {"canary": 300, "control": 300, "crashes": (0.02, 0.02), "silent": (0.02, 0.02)},
    "stalled": {"hours": 700, "canary": 300, "control": 300, "crashes": (0.02, 0.02), "silent": (0.02, 0.02)},
}


@pytest.mark.parametrize("why", HOLDS)
def test_numbers_that_are_not_fit_to_widen_on_hold(why: str) -> None:
    decision = look(rollout(), fleet(**HOLDS[why]))
    assert (decision.action, decision.why, decision.ppm_after) == ("hold", why, 100_000)


@pytest.mark.parametrize("why", HOLDS)
def test_harm_outranks_every_reason_to_hold(why: str) -> None:
    worse = {**HOLDS[why], "crashes": (0.5, 0.05), "hours": HOLDS[why].get("hours", 100)}
    assert look(rollout(), fleet(**worse)).action == "roll_back"


def test_crashes_that_kill_telemetry_are_a_rollback_by_silence() -> None:
    decision = look(rollout(), fleet(heard=(0.4, 1.0), crashes=(0.0, 0.0), silent=(0.6, 0.05)))
    assert (decision.action, decision.why) == ("roll_back", "harm")
    assert decision.reason.startswith("silent")


def test_a_canary_of_which_nothing_is_heard_goes_back_while_its_control_reports() -> None:
    decision = look(rollout(), fleet(hours=60, heard=(0.0, 1.0), crashes=(0.0, 0.01), silent=(1.0, 0.05)))
    assert decision.action == "roll_back"
    assert look(rollout(), fleet(hours=30, heard=(0.0, 1.0), crashes=(0, 0.01))).why == "sample_ratio"


def test_harm_in_one_segment_is_found_and_named() -> None:
    observed = fleet(crashes=(0.3, 0.3), segment=lambda number: number % 100 == 0)
    among = observed.segments["locale=de-DE"] & observed.canary
    crashed = np.where(among, np.arange(len(among)) // 100, observed.affected["crashes"])
    worse = Observations(**{**vars(observed), "affected": {**observed.affected, "crashes": crashed}})
    decision = look(rollout(), worse)
    assert (decision.action, decision.why) == ("roll_back", "segment_harm")
    assert decision.reason.endswith("for locale=de-DE")
    assert [(e.metric, e.segment) for e in decision.guardrails][:2] == [("crashes", ""), ("crashes", "locale=de-DE")]


def test_alpha_is_divided_among_guardrails_the_fleet_and_its_possible_segments() -> None:
    found = judge(LADDER, 0, fleet(segment=lambda number: number % 10 == 0))
    whole, part = (np.exp(-found[place].harm_threshold) for place in (0, 1))
    assert 2 * (whole + 16 * part) == pytest.approx(LADDER.alpha)
    alone = LADDER.model_copy(update={"segments": ()})
    assert np.exp(-judge(alone, 0, fleet())[0].harm_threshold) == pytest.approx(LADDER.alpha / 2)


def test_a_few_reverts_are_no_harm_where_they_are_negligible() -> None:
    ladder = LADDER.model_copy(update={"guardrails": [Guardrail(metric="reverts")]})
    observed = fleet(canary=20_000, control=20_000)
    reverted = np.where(np.arange(40_000) < 30, 5, NEVER)
    few = Observations(**{**vars(observed), "joined": {"reverts": observed.entered}, "affected": {"reverts": reverted}})
    decision = look(rollout(ladder=ladder), few)
    assert decision.guardrails[0].harmful
    assert (decision.action, decision.why) == ("widen", "noninferior")
    many = np.where(np.arange(40_000) < 1000, 5, NEVER)
    more = Observations(**{**vars(few), "affected": {"reverts": many}})
    assert look(rollout(ladder=ladder), more).action == "roll_back"


def test_nothing_is_negligible_before_it_could_have_happened() -> None:
    quiet = {"crashes": (0.0, 0.0), "silent": (0.0, 0.0)}
    young = {e.metric: e for e in judge(LADDER, 0, fleet(hours=20, **quiet))}
    day_old = {e.metric: e for e in judge(LADDER, 0, fleet(hours=30, **quiet))}
    older = {e.metric: e for e in judge(LADDER, 0, fleet(hours=60, **quiet))}
    assert not young["crashes"].negligible
    assert day_old["crashes"].negligible
    assert not day_old["silent"].negligible
    assert (day_old["silent"].canary_devices, older["silent"].canary_devices) == (0, 4000)
    assert older["silent"].negligible


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([0, 1]),
    st.integers(1, 900),
    st.integers(0, 600),
    st.integers(0, 600),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_whatever_is_observed_no_rung_is_skipped_and_nothing_unfit_is_widened(
    rung: int, hours: int, canary: int, control: int, crashes: Any, silent: Any, heard: Any
) -> None:
    observed = fleet(hours, canary, control, crashes, silent, heard)
    decision = look(rollout(rung), observed)
    shares = [step.ppm for step in LADDER.rungs]
    assert decision.ppm_before == shares[rung]
    expected = {"widen": shares[1], "finish": shares[2], "hold": shares[rung], "roll_back": 0}
    assert decision.ppm_after == expected[decision.action]
    if decision.action in ("widen", "finish"):
        assert (decision.action == "finish") == (rung == 1)
        assert min(decision.canary_devices, decision.control_devices) >= LADDER.min_devices
        assert hours >= LADDER.rungs[rung].min_hours
        assert all(e.noninferior and not e.harmful for e in decision.guardrails if not e.segment)
    assert (decision.action == "roll_back") == any(e.harmful for e in decision.guardrails)


def test_devices_at_risk_are_those_that_entered_and_were_not_yet_affected() -> None:
    observed = Observations(
        hours=5,
        canary=np.array([True, True, False, False]),
        cohort=np.array([0, 0, 0, 1]),
        entered=np.array([0, 0, 0, 2]),
        heard=np.zeros(4, dtype=int),
        last=np.zeros(4, dtype=int),
        joined={"crashes": np.array([0, 3, 0, 2])},
        affected={"crashes": np.array([1, NEVER, 2, 2])},
        segments={},
    )
    found = counts(observed, "crashes")
    assert found.canary.tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert found.both.tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 0, 0]]
    assert found.canary_at_risk.tolist() == [[1, 1, 0, 1, 1], [0, 0, 0, 0, 0]]
    assert found.both_at_risk.tolist() == [[2, 2, 1, 1, 1], [0, 0, 1, 0, 0]]
