import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, hypergeom

from pocketloop.delivery.statistics import (
    BIG_RATIO,
    Counts,
    confidence_sequence,
    harm,
    log_e_binomial,
    log_e_rare,
    log_likelihood,
    noninferiority,
)


def one_look(k: int, m: int, canary: int, both: int) -> Counts:
    return Counts(*(np.array([[[float(value)]]]) for value in (k, m, canary, both)))


def fleet(seed: int, runs: int, devices: int, hours: int, rate: float, ratio: np.ndarray | float = 1.0) -> Counts:
    """`devices` in each arm, affected at most once: hourly hazard `rate` in control, `rate * ratio` in the canary."""
    draw = np.random.default_rng(seed)
    left = np.full((2, runs), devices)
    out = np.zeros((4, runs, 1, hours))
    ratios = np.broadcast_to(ratio, hours)
    for hour in range(hours):
        new = draw.binomial(left, np.array([[min(1.0, rate * ratios[hour])], [rate]]))
        out[:, :, 0, hour] = new[0], new.sum(axis=0), left[0], left.sum(axis=0)
        left = left - new
    return Counts(*out)


def surely_above(successes: int, n: int, confidence: float = 0.9999) -> float:
    """What the true share is above, unless one in ten thousand happened."""
    return float(binomtest(successes, n, alternative="greater").proportion_ci(confidence, "exact").low)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_mean_of_an_e_value_is_at_most_one_whatever_ties_there_are(canary: int, control: int, data: st.DataObject):
    m = data.draw(st.integers(0, canary + control))
    drawn = hypergeom(canary + control, canary, m)
    support = range(max(0, m - control), min(canary, m) + 1)
    for test in (harm, lambda c: noninferiority(c, 1.0 + 1e-9)):
        mean = sum(
            drawn.pmf(k) * math.exp(float(test(one_look(k, m, canary, canary + control))[0, 0])) for k in support
        )
        assert mean <= 1 + 1e-9


def test_the_likelihood_is_that_of_a_binomial_draw() -> None:
    theta, k, m, q = 1.7, 13, 20, 30 / 75
    p = q * theta / (q * theta + 1 - q)
    expected = binom.logpmf(k, m, p) - binom.logpmf(k, m, q)
    assert log_likelihood(one_look(k, m, 30, 75), np.array([theta]))[0, 0, 0] == pytest.approx(expected)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 200), st.data())
def test_at_a_single_look_no_e_value_claims_more_than_the_exact_test(m: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, m))
    exact = binomtest(k, m, 0.5, alternative="greater").pvalue
    assert math.exp(-float(harm(one_look(k, m, 10**6, 2 * 10**6))[0, 0])) >= exact * (1 - 1e-9)
    two_sided = binomtest(k, m, 0.5).pvalue
    assert math.exp(-log_e_binomial(k, m, 0.5)) >= two_sided / 2 * (1 - 1e-9)


def test_the_beta_mixture_is_the_integral_that_it_stands_for() -> None:
    grid = (np.arange(200_000) + 0.5) / 200_000
    a, b, k, n, q = 40.0, 60.0, 61, 120, 0.4
    log_prior = (a - 1) * np.log(grid) + (b - 1) * np.log1p(-grid)
    prior = np.exp(log_prior - log_prior.max())
    ratios = k * np.log(grid / q) + (n - k) * np.log((1 - grid) / (1 - q))
    numeric = math.log((prior * np.exp(ratios)).sum() / prior.sum())
    assert log_e_binomial(k, n, q) == pytest.approx(numeric, rel=1e-4)


def test_both_mixtures_see_much_the_same_in_the_same_data() -> None:
    found = float(harm(one_look(300, 500, 10**6, 2 * 10**6))[0, 0])
    assert found == pytest.approx(log_e_binomial(300, 500, 0.5), abs=2.0)


@pytest.mark.parametrize("ratio", [1.0, 0.7, np.where(np.arange(336) % 48 < 24, 0.5, 1.0)])
def test_a_harmless_canary_is_taken_back_no_more_often_than_promised_with_a_look_every_hour(ratio) -> None:
    alarms = (harm(fleet(1, 400, 400, 336, 0.003, ratio)) >= math.log(20)).any(axis=1)
    assert surely_above(int(alarms.sum()), 400) <= 0.05


def test_a_canary_at_the_margin_is_certified_no_more_often_than_promised() -> None:
    certified = (noninferiority(fleet(2, 400, 500, 336, 0.003, 1.5), 1.5) >= math.log(20)).any(axis=1)
    assert surely_above(int(certified.sum()), 400) <= 0.05


@pytest.mark.parametrize("truth", [0.6, 1.0, 2.0])
def test_the_confidence_sequence_holds_at_all_hours_together(truth: float) -> None:
    low, high = confidence_sequence(fleet(3, 150, 400, 168, 0.004, truth), 0.9)
    missed = ((low > truth) | (high < truth)).any(axis=1)
    assert surely_above(int(missed.sum()), 150) <= 0.1
    assert (low[:, -1] > 0).all()
    assert (high[:, -1] < BIG_RATIO).all()


def test_nothing_observed_bounds_nothing() -> None:
    low, high = confidence_sequence(one_look(0, 0, 0, 0), 0.95)
    assert (low[0, 0], high[0, 0]) == (0.0, BIG_RATIO)
    assert harm(one_look(0, 0, 0, 0))[0, 0] == pytest.approx(0.0)
    assert noninferiority(one_look(0, 0, 0, 0), 1.5)[0, 0] == pytest.approx(0.0)


def test_harm_that_begins_later_is_found_though_the_first_days_were_better() -> None:
    novelty = np.where(np.arange(336) < 72, 0.5, 2.0)
    found = harm(fleet(4, 50, 2000, 336, 0.001, novelty)) >= math.log(240)
    assert found.any(axis=1).all()
    assert np.median(found.argmax(axis=1)) < 72 + 60


def test_cohorts_add_their_evidence() -> None:
    first, second = one_look(7, 10, 50, 100), one_look(3, 5, 40, 100)
    together = Counts(*(np.concatenate(pair, axis=-2) for pair in zip(*map(parts, (first, second)), strict=True)))
    theta = np.array([0.5, 2.0])
    assert log_likelihood(together, theta) == pytest.approx(
        log_likelihood(first, theta) + log_likelihood(second, theta)
    )


def parts(counts: Counts) -> tuple[np.ndarray, ...]:
    return counts.canary, counts.both, counts.canary_at_risk, counts.both_at_risk


def test_what_almost_never_happens_is_certified_and_what_happens_is_not() -> None:
    assert log_e_rare(0, 2000, 0.005) > math.log(20)
    assert log_e_rare(10, 2000, 0.005) < 0
    assert log_e_rare(0, 100, 0.005) < math.log(20)
    assert log_e_rare(0, 0, 0.005) == 0.0


def test_a_share_at_the_bound_is_rarely_called_negligible() -> None:
    draw = np.random.default_rng(5)
    wrong = 0
    for _ in range(400):
        affected = np.cumsum(draw.random(3000) < 0.02)
        wrong += any(log_e_rare(int(affected[n - 1]), n, 0.02) >= math.log(20) for n in range(100, 3001, 100))
    assert surely_above(wrong, 400) <= 0.05
