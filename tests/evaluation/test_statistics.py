import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from pocketloop.evaluation.resampling import Resampled
from pocketloop.evaluation.statistics import (
    Comparison,
    below,
    chance_to_pass,
    chance_to_win,
    estimate,
    holm,
    items_for_width,
    mcnemar_exact,
    noninferior,
    optimism,
    pairs_needed,
    superior,
    wilson,
    wins_needed,
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


def test_the_bootstrap_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(1).beta(2, 3, size=400)
    found = estimate(list(values))
    drawn = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    half = (drawn.high - drawn.low) / 2
    assert (found.low, found.high) == pytest.approx((drawn.low, drawn.high), abs=half / 10)


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=7), st.floats(-0.9, 0.9))
def test_the_resamples_of_a_few_pairs_are_those_that_one_can_list(values: list[int], mean: float) -> None:
    resampled = Resampled(values, (-1, 1))
    weights = dict(zip((-1, 0, 1), resampled._tilted(mean), strict=True))
    assert sum(weights.values()) == pytest.approx(1)
    assert sum(value * weight for value, weight in weights.items()) == pytest.approx(mean, abs=1e-6)
    sums = {0: 1.0}
    for _ in values:
        sums = _with_one_more(sums, weights)
    observed = sum(values)
    assert resampled.at_least(mean) == pytest.approx(sum(p for total, p in sums.items() if total >= observed))
    assert resampled.at_most(mean) == pytest.approx(sum(p for total, p in sums.items() if total <= observed))


def _with_one_more(sums: dict[int, float], weights: dict[int, float]) -> dict[int, float]:
    found: Counter[int] = Counter()
    for total, chance in sums.items():
        for value, weight in weights.items():
            found[total + value] += chance * weight  # type: ignore[assignment]
    return dict(found)


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


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_that_of_statsmodels(losses: int, wins: int) -> None:
    if losses + wins:
        expected = mcnemar([[5, losses], [wins, 7]], exact=True).pvalue
        assert mcnemar_exact(losses, wins) == pytest.approx(float(expected))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_holms_correction_is_that_of_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected))


def test_a_share_below_its_floor_is_told_by_the_exact_binomial_test() -> None:
    assert below([1.0] * 30 + [0.0] * 20, 0.8) == pytest.approx(binomtest(30, 50, 0.8, "less").pvalue)
    assert below([], 0.8) == 1.0
    graded = list(np.random.default_rng(4).beta(2, 3, size=300))
    assert below(graded, 0.5) < 1e-4 < 0.3 < below(graded, 0.4)


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


def test_a_clearly_worse_candidate_fails_whatever_the_order_of_the_items() -> None:
    theirs = [1.0] * 400
    ours = [1.0] * 320 + [0.0] * 80
    found = noninferior(ours, theirs, 0.03)
    assert (found.verdict, found.wins, found.losses) == ("fail", 0, 80)
    assert noninferior(ours[::-1], theirs, 0.03) == found


@given(bits, st.floats(0, 0.3))
def test_bounds_and_verdict_say_the_same(pairs: list[tuple[bool, bool]], margin: float) -> None:
    found = noninferior([float(a) for a, _ in pairs], [float(b) for _, b in pairs], margin)
    assert found.low - 1e-4 <= found.difference <= found.high + 1e-4
    if abs(found.low + margin) > 1e-4:
        assert (found.verdict == "pass") == (found.low > -margin)
    if abs(found.high + margin) > 1e-4:
        assert (found.verdict == "fail") == (found.high < -margin)


@given(bits)
def test_bounds_mirror_when_the_two_change_places(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    there, back = noninferior(ours, theirs, 0.05), noninferior(theirs, ours, 0.05)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-4)


def test_superiority_is_exact_on_right_and_wrong_and_a_bootstrap_otherwise() -> None:
    better, worse = [1.0] * 90 + [0.0] * 10, [1.0] * 70 + [0.0] * 30
    found = superior(better, worse)
    assert (found.verdict, found.test) == ("pass", "exact McNemar")
    assert found.p == pytest.approx(binomtest(20, 20, 0.5, alternative="greater").pvalue)
    assert superior(worse, better).verdict == superior(better, better).verdict == "fail"
    assert superior([1.0] * 3 + [0.0], [0.0] + [1.0, 1.0, 0.0]).verdict == "inconclusive"
    assert superior([], []).verdict == "inconclusive"
    by_margin = superior(better, worse, margin=0.1)
    assert (by_margin.verdict, by_margin.test) == ("pass", "paired bootstrap")
    assert superior(better, worse, margin=0.25).verdict == "inconclusive"
    graded = superior([score * 0.9 + 0.05 for score in better], worse)
    assert (graded.verdict, graded.test) == ("pass", "paired bootstrap")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "wins", "losses"),
    [(30, 0.1, 0.3), (50, 0.05, 0.15), (57, 0.0, 0.2), (100, 0.02, 0.05), (150, 0.05, 0.08), (200, 0.0, 0.05)],
)
def test_on_the_border_neither_a_pass_nor_a_fail_is_more_frequent_than_the_confidence_allows(
    n: int, wins: float, losses: float
) -> None:
    """Not simulated: every outcome of n pairs, weighed by its probability."""
    passed = failed = 0.0
    for lost in range(n + 1):
        if (of_losses := binom.pmf(lost, n, losses)) < 1e-6:
            continue
        for won, of_wins in enumerate(binom.pmf(np.arange(n - lost + 1), n - lost, wins / (1 - losses))):
            if (chance := of_losses * of_wins) < 1e-7:
                continue
            resampled = Resampled([1] * won + [-1] * lost + [0] * (n - won - lost), (-1, 1))
            passed += chance * (resampled.at_least(wins - losses) < 0.05)
            failed += chance * (resampled.at_most(wins - losses) < 0.05)
    assert passed <= 0.05
    assert failed <= 0.05


@pytest.mark.slow
def test_simulated_on_the_border_a_candidate_passes_as_often_as_the_confidence_allows() -> None:
    passed = sum(run.verdict == "pass" for run in simulate(300, wins=0.05, losses=0.08, margin=0.03, runs=150))
    assert binomtest(passed, 150, 0.05, alternative="greater").pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("n", "share", "margin"), [(400, 0.1, 0.03), (300, 0.2, 0.1), (700, 0.05, 0.02)])
def test_an_equal_candidate_passes_as_often_as_the_power_says(n: int, share: float, margin: float) -> None:
    runs = simulate(n, wins=share / 2, losses=share / 2, margin=margin, runs=150)
    passed = sum(run.verdict == "pass" for run in runs)
    said = chance_to_pass(n, share, margin)
    # The normal approximation may be off by a few points beside the chance of 150 runs.
    low, high = binomtest(passed, 150).proportion_ci(0.999)
    assert low - 0.03 <= said <= high + 0.03


@pytest.mark.slow
def test_a_better_candidate_wins_as_often_as_the_power_says() -> None:
    runs = simulate(300, wins=0.09, losses=0.04, margin=0.0, runs=300, test=superior)
    won = sum(run.verdict == "pass" for run in runs)
    low, high = binomtest(won, 300).proportion_ci(0.999)
    # The exact test is a little more careful than the approximation.
    assert low - 0.03 <= chance_to_win(300, 0.05, 0.13) <= high + 0.08


def test_graded_scores_on_the_border_pass_as_often_as_the_confidence_allows() -> None:
    generator = np.random.default_rng(23)
    passed = 0
    for _ in range(60):
        theirs = generator.beta(4, 2, size=80)
        ours = np.clip(theirs - 0.05 + generator.normal(0, 0.1, size=80), -1, 2)  # worse by the margin
        passed += noninferior(list(ours - theirs + 0.5), [0.5] * 80, 0.05).verdict == "pass"
    assert binomtest(passed, 60, 0.05, alternative="greater").pvalue > 1e-4


def test_holm_calls_a_harmless_family_of_slices_bad_no_more_often_than_one_test() -> None:
    generator = np.random.default_rng(29)
    called = 0
    for _ in range(60):
        p_values = []
        for _ in range(12):
            kind = generator.choice([-1, 0, 1], size=40, p=[0.15, 0.8, 0.05])  # worse by 0.1, as allowed
            p_values.append(Resampled(list(kind), (-1, 1)).at_most(-0.1))
        called += min(holm(p_values)) < 0.05
    assert binomtest(called, 60, 0.05, alternative="greater").pvalue > 1e-4


def test_the_power_agrees_with_what_was_published_for_ten_percent_discordance() -> None:
    assert 0.38 < chance_to_pass(500, 0.10, 0.02) < 0.47
    assert chance_to_pass(1000, 0.10, 0.03) == pytest.approx(0.90, abs=0.02)
    assert chance_to_pass(2000, 0.10, 0.02) == pytest.approx(0.87, abs=0.03)


def test_the_items_that_are_needed_are_the_fewest_that_do() -> None:
    needed = pairs_needed(0.10, 0.03)
    assert chance_to_pass(needed, 0.10, 0.03) >= 0.8 > chance_to_pass(needed - 1, 0.10, 0.03)
    needed = wins_needed(0.03, 0.10)
    assert chance_to_win(needed, 0.03, 0.10) >= 0.8 > chance_to_win(needed - 1, 0.03, 0.10)
    low, high = wilson(round(0.9 * items_for_width(0.9, 0.05)), items_for_width(0.9, 0.05))
    assert (high - low) / 2 <= 0.05


def test_the_best_of_equal_candidates_is_as_lucky_as_the_bound_says_at_most() -> None:
    generator = np.random.default_rng(31)
    lucky = generator.binomial(800, 0.85, size=(2000, 20)).max(axis=1).mean() / 800 - 0.85
    bound = optimism(20, 800, math.sqrt(0.85 * 0.15))
    assert bound / 2 < lucky <= bound
    assert optimism(1, 800, 0.4) == optimism(0, 800, 0.4) == 0


def simulate(n: int, wins: float, losses: float, margin: float, runs: int, test=noninferior) -> list[Comparison]:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(17)
    results = []
    for _ in range(runs):
        kind = generator.choice(3, size=n, p=[1 - wins - losses, wins, losses])
        results.append(test(list((kind != 2).astype(float)), list((kind != 1).astype(float)), margin))
    return results
