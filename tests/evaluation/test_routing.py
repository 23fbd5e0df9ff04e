"""What a router's confidence is worth, and the threshold that follows."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pocketloop.evaluation.routing import choose_threshold, reliability, router_report
from pocketloop.evaluation.suite import Outcome, with_confidence


def drawn(n: int, seed: int, boast: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether each answer is right: with just that probability, or with a power of it."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(5, 1, n)
    return confidence, rng.random(n) < confidence**boast


def outcomes(confidence: np.ndarray, right: np.ndarray) -> list[Outcome]:
    return [
        Outcome(
            example_id=str(n), scores={}, answer="music", reference="music" if hit else "timer", confidence=float(sure)
        )
        for n, (sure, hit) in enumerate(zip(confidence, right, strict=True))
    ]


def test_bins_hold_equally_many_answers_and_never_part_equal_ones() -> None:
    confidence, right = drawn(1000, 1)
    assert [one.right.n for one in reliability(confidence, right)] == [100] * 10
    ties = np.array([0.9] * 70 + [0.5] * 30)
    assert [(one.low, one.right.n) for one in reliability(ties, ties > 0.6)] == [(0.5, 30), (0.9, 70)]


def test_an_honest_router_has_an_error_that_chance_explains_and_a_boasting_one_has_not() -> None:
    honest = router_report(outcomes(*drawn(2000, 2)), None, 0.9, 0.95)
    boasting = router_report(outcomes(*drawn(2000, 2, boast=2.5)), None, 0.9, 0.95)
    assert honest is not None and boasting is not None
    assert honest.error <= honest.error_by_chance < boasting.error
    confidence, right = drawn(2000, 2)
    assert honest.auroc == pytest.approx(roc_auc_score(right, confidence))


def test_the_curve_has_a_point_for_every_threshold_at_which_something_changes() -> None:
    found = router_report(outcomes(np.array([0.9, 0.8, 0.8, 0.6]), np.array([1, 1, 0, 0], dtype=bool)), None, 0.9, 0.95)
    assert found is not None
    assert [(p.threshold, p.cloud, p.accuracy, p.wrong, p.lost) for p in found.curve] == [
        (0, 0, 0.5, 0.5, 0), (0.6, 0, 0.5, 0.5, 0), (0.8, 0.25, pytest.approx(2 / 3), 0.25, 0), (0.9, 0.75, 1, 0, 0.25)
    ]  # fmt: skip


def test_what_is_declined_or_no_label_goes_to_the_cloud_however_sure() -> None:
    items = outcomes(np.full(4, 0.9), np.ones(4, dtype=bool))
    items[0] = items[0].model_copy(update={"answer": "out_of_scope", "reference": "out_of_scope"})
    items = with_confidence(items, {"0": 0.99, "1": 0.9, "2": 0.0, "3": 0.9})
    found = router_report(items, "out_of_scope", 0.9, 0.95)
    assert found is not None
    assert (found.curve[0].cloud, found.curve[0].accuracy) == (0.5, 1)
    assert router_report(with_confidence(items, {}), "out_of_scope", 0.9, 0.95) is None


def test_the_threshold_keeps_its_promise_on_new_messages_as_often_as_it_says() -> None:
    truth, accuracy = drawn(200_000, 0), []
    for seed in range(120):
        threshold = choose_threshold(*drawn(600, seed + 1), 0.9, 0.9)
        if threshold is not None:
            accuracy.append(truth[1][truth[0] >= threshold].mean())
    assert len(accuracy) > 100  # it is found nearly always
    assert sum(value < 0.9 for value in accuracy) <= 12 + 3 * 3.3  # at most one in ten breaks it, and three errors


def test_more_messages_leave_more_on_the_phone_and_too_few_leave_nothing() -> None:
    kept = []
    for n in (1000, 6000):
        confidence, right = drawn(n, 4)
        threshold = choose_threshold(confidence, right, 0.9, 0.95)
        assert threshold is not None
        kept.append((confidence >= threshold).mean())
    assert kept[1] > kept[0]
    assert choose_threshold(*drawn(30, 4), 0.95, 0.95) is None
    assert choose_threshold(np.array([]), np.array([], dtype=bool), 0.9, 0.95) is None
    assert choose_threshold(np.full(500, 0.7), np.ones(500, dtype=bool), 0.9, 0.95) == 0.7
