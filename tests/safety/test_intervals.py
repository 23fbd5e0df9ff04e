import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import confint_proportions_2indep

from pocketloop.safety.intervals import auc, difference_interval, mean_interval, within

SCORES = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=40)


@given(SCORES, SCORES)
def test_the_area_is_scikit_learns_ties_included(positives: list[float], negatives: list[float]) -> None:
    found = auc(positives, negatives)
    labels = [1] * len(positives) + [0] * len(negatives)
    assert found.value == pytest.approx(roc_auc_score(labels, positives + negatives))
    assert 0 <= found.interval[0] <= found.value + 1e-12 and found.value - 1e-12 <= found.interval[1] <= 1


def components(positives: list[float], negatives: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's components by their definition, pair by pair."""
    above = np.array([[(a > b) + (a == b) / 2 for b in negatives] for a in positives])
    return above.mean(1), above.mean(0)


@given(
    st.lists(st.integers(-6, 6).map(float), min_size=2, max_size=30),
    st.lists(st.integers(-6, 6).map(float), min_size=2, max_size=30),
)
def test_the_variance_is_delongs_by_his_own_definition(positives: list[float], negatives: list[float]) -> None:
    by_positive, by_negative = components(positives, negatives)
    variance = by_positive.var(ddof=1) / len(positives) + by_negative.var(ddof=1) / len(negatives)
    found = auc(positives, negatives)
    if 0 < found.value < 1:
        odds = [np.log(end / (1 - end)) for end in found.interval]
        width = np.sqrt(variance) / (found.value * (1 - found.value))
        assert (odds[1] - odds[0]) / 2 == pytest.approx(1.959964 * width, abs=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Normal scores one apart: the true area is Phi(1 / sqrt 2)."""
    rng, held = np.random.default_rng(4), 0
    for _ in range(400):
        found = auc(rng.normal(1, 1, 60).tolist(), rng.normal(0, 1, 40).tolist())
        held += found.interval[0] <= 0.76025 <= found.interval[1]
    assert 0.92 <= held / 400 <= 0.98


def test_items_of_one_person_are_not_counted_as_independent() -> None:
    """Ten copies of each item say no more than one: the interval stays, and holds the truth."""
    rng, held, naive = np.random.default_rng(5), 0, 0
    for _ in range(300):
        positives, negatives = rng.normal(1, 1, 20), rng.normal(0, 1, 20)
        high, low = np.repeat(positives, 10).tolist(), np.repeat(negatives, 10).tolist()
        groups = [str(n // 10) for n in range(200)]
        found, alone = auc(high, low, groups, groups), auc(positives.tolist(), negatives.tolist())
        assert found.interval == pytest.approx(alone.interval, abs=1e-9)
        held += found.interval[0] <= 0.76025 <= found.interval[1]
        naive += auc(high, low).interval[0] <= 0.76025 <= auc(high, low).interval[1]
    assert held / 300 >= 0.9 > 0.7 > naive / 300


def test_perfect_separation_of_few_items_is_no_certainty() -> None:
    found = auc([1.0] * 10, [0.0] * 20)
    assert found.value == 1 and found.interval == (pytest.approx(0.05 ** (1 / 10)), 1.0)
    assert auc([0.0] * 10, [1.0] * 20).interval[1] == pytest.approx(1 - 0.05 ** (1 / 10))


@pytest.mark.parametrize(
    ("one", "other"), [((5, 80), (1, 90)), ((0, 60), (0, 60)), ((60, 60), (3, 50)), ((7, 9), (2, 9))]
)
def test_the_difference_of_two_shares_is_newcombes(one: tuple[int, int], other: tuple[int, int]) -> None:
    expected = confint_proportions_2indep(*one, *other, method="newcomb", compare="diff")
    assert difference_interval(one, other) == pytest.approx(expected, abs=1e-6)


def test_nothing_observed_says_nothing_of_a_difference() -> None:
    assert difference_interval((0, 0), (0, 50)) == difference_interval((5, 50), (0, 0)) == (-1.0, 1.0)


def test_a_mean_of_few_values_is_wide_and_keeps_its_range() -> None:
    low, high = mean_interval([7.9, 8.0, 6.0, 8.0, 7.5], 0.0, 8.0)
    assert low == pytest.approx(6.421, abs=1e-3) and high == 8.0  # mean 7.48; 2.7764 (t, 4) times 0.3813 is 1.0587
    assert mean_interval([3.0], 0.0, 8.0) == (0.0, 8.0)


@pytest.mark.parametrize(
    ("interval", "bound", "verdict"),
    [
        ((0.1, 0.2), 0.3, (True, False)),
        ((0.1, 0.4), 0.3, (False, True)),
        ((0.4, 0.5), 0.3, (False, False)),
        ((0.4, 0.5), None, (True, False)),
    ],
)
def test_an_interval_passes_fails_or_straddles_its_bound(
    interval: tuple[float, float], bound: float | None, verdict: tuple[bool, bool]
) -> None:
    assert within(interval, bound) == dict(zip(("passed", "undecided"), verdict, strict=True))
