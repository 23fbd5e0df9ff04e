import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pocketloop.evaluation.statistics import (
    chance_to_pass,
    estimate,
    mcnemar_exact,
    noninferior,
    pairs_needed,
    wilson,
)

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
scores = st.lists(st.floats(0, 1), min_size=1, max_size=60)
bits = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_of_a_proportion_is_scipys_wilson_interval(count: tuple[int, int], confidence: float) -> None:
    expected = binomtest(*count).proportion_ci(confidence, method="wilson")
    assert wilson(*count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(counts)
def test_an_interval_lies_in_0_to_1_and_holds_its_estimate(count: tuple[int, int]) -> None:
    low, high = wilson(*count)
    assert 0 <= low <= count[0] / count[1] <= high <= 1


def test_nothing_observed_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    nothing = estimate([])
    assert (nothing.n, nothing.low, nothing.high) == (0, 0.0, 1.0)


@given(scores)
def test_an_estimate_is_the_mean_inside_its_interval(values: list[float]) -> None:
    found = estimate(values)
    assert found.value == pytest.approx(math.fsum(values) / len(values))
    assert 0 <= found.low <= found.value <= found.high <= 1 + 1e-12


def test_the_bootstrap_interval_of_a_mean_is_about_the_normal_one() -> None:
    values = np.random.default_rng(1).beta(2, 3, size=2000)
    found = estimate(list(values))
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=half / 20)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 20)


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_the_exact_binomial_test_on_the_discordant_pairs(losses: int, wins: int) -> None:
    if losses + wins == 0:
        assert mcnemar_exact(0, 0) == mcnemar_exact(0, 0, "greater") == 1.0
        return
    two_sided = binomtest(wins, losses + wins, 0.5).pvalue
    greater = binomtest(wins, losses + wins, 0.5, alternative="greater").pvalue
    assert mcnemar_exact(losses, wins) == pytest.approx(two_sided, rel=1e-6, abs=1e-250)
    assert mcnemar_exact(losses, wins, "greater") == pytest.approx(greater, rel=1e-6, abs=1e-250)


def test_mcnemar_does_not_overflow_on_numpys_whole_numbers() -> None:
    assert mcnemar_exact(np.int64(900), np.int64(1100)) == mcnemar_exact(900, 1100)
    assert 0 < mcnemar_exact(np.int64(900), np.int64(1100)) < 1e-4


@given(bits, st.floats(0.01, 0.2))
def test_a_wider_margin_never_makes_a_verdict_worse(pairs: list[tuple[bool, bool]], margin: float) -> None:
    rank = {"fail": 0, "inconclusive": 1, "pass": 2}
    ours, theirs = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    strict, lenient = noninferior(ours, theirs, margin), noninferior(ours, theirs, 2 * margin)
    assert strict.low <= strict.high
    assert rank[strict.verdict] <= rank[lenient.verdict]
    assert strict.difference == pytest.approx((sum(ours) - sum(theirs)) / len(pairs))


def test_a_handful_of_equal_answers_proves_nothing() -> None:
    assert noninferior([1.0] * 10, [1.0] * 10, 0.03).verdict == "inconclusive"
    assert noninferior([], [], 0.03).verdict == "inconclusive"
    assert noninferior([1.0] * 1000, [1.0] * 1000, 0.03).verdict == "pass"


def test_a_clearly_worse_candidate_fails_and_the_same_seed_gives_the_same_bounds() -> None:
    theirs = [1.0] * 400
    ours = [1.0] * 320 + [0.0] * 80
    assert noninferior(ours, theirs, 0.03).verdict == "fail"
    assert noninferior(ours, theirs, 0.03, seed=5) == noninferior(ours, theirs, 0.03, seed=5)


@pytest.mark.parametrize("n", [300, 800])
def test_a_candidate_that_is_worse_by_the_margin_passes_at_most_as_often_as_the_confidence_allows(n: int) -> None:
    passed = [run.verdict == "pass" for run in simulate(n, wins=0.05, losses=0.08, margin=0.03, runs=300)]
    # At most 5 % true passes; 300 runs of that give more than 9 % less often than once in a thousand.
    assert sum(passed) / len(passed) <= 0.09


def test_an_equal_candidate_passes_about_as_often_as_the_power_says() -> None:
    passed = [run.verdict == "pass" for run in simulate(1000, wins=0.05, losses=0.05, margin=0.03, runs=300)]
    assert sum(passed) / len(passed) == pytest.approx(chance_to_pass(1000, 0.1, 0.03), abs=0.07)


def test_the_power_agrees_with_what_was_published_for_ten_percent_discordance() -> None:
    assert 0.38 < chance_to_pass(500, 0.10, 0.02) < 0.47
    assert chance_to_pass(1000, 0.10, 0.03) == pytest.approx(0.90, abs=0.02)
    assert chance_to_pass(2000, 0.10, 0.02) == pytest.approx(0.87, abs=0.03)
    needed = pairs_needed(0.10, 0.03)
    assert chance_to_pass(needed, 0.10, 0.03) >= 0.8 > chance_to_pass(needed - 1, 0.10, 0.03)


def simulate(n: int, wins: float, losses: float, margin: float, runs: int) -> list:
    generator = np.random.default_rng(17)
    results = []
    for run in range(runs):
        kind = generator.choice(3, size=n, p=[1 - wins - losses, wins, losses])
        results.append(noninferior(list((kind != 2).astype(float)), list((kind != 1).astype(float)), margin, seed=run))
    return results
