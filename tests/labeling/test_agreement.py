import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from pocketloop.labeling.agreement import Table, agreement, cohen_kappa

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


def table(pairs: list[tuple[bool, bool]]) -> Table:
    return [[pairs.count((a, b)) for b in (False, True)] for a in (False, True)]


@given(PAIRS)
def test_kappa_is_what_scikit_learn_computes(pairs: list[tuple[bool, bool]]) -> None:
    found = agreement(table(pairs))
    left, right = zip(*pairs, strict=True)
    if found.kappa is None:
        assert len(set(left)) == len(set(right)) == 1
    else:
        assert found.kappa == pytest.approx(cohen_kappa_score(left, right))
        assert found.interval is not None and -1 <= found.interval[0] <= found.interval[1] <= 1


def test_kappa_of_cohens_kind_of_table_is_the_hand_computed_value() -> None:
    assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)
    assert cohen_kappa([[0, 0], [0, 7]]) is None
    assert cohen_kappa([[0, 0], [0, 0]]) is None


def test_the_interval_holds_the_true_kappa_about_as_often_as_it_says() -> None:
    import numpy as np

    rng = np.random.default_rng(3)
    shares = np.array([0.25, 0.05, 0.1, 0.6])
    truth = cohen_kappa((shares.reshape(2, 2) * 1000).astype(int).tolist())
    assert truth is not None
    held = 0
    for seed in range(60):
        cells = rng.choice(4, size=200, p=shares)
        low, high = agreement(np.bincount(cells, minlength=4).reshape(2, 2).tolist(), seed).interval or (0.0, 0.0)
        held += low <= truth <= high
    assert 51 <= held <= 60


def test_the_same_items_give_the_same_interval() -> None:
    pairs = [(True, True)] * 30 + [(True, False)] * 5 + [(False, False)] * 12
    assert agreement(table(pairs)) == agreement(table(pairs[::-1]))
