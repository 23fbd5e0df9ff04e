"""What a set's outcomes say together: against scikit-learn and by simulation."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from pocketloop.evaluation.measures import dialogues, macro_f1, measures, ratio
from pocketloop.evaluation.suite import Outcome

labels = st.sampled_from(["timer", "music", "weather", "(unknown label)"])


def outcome(number: int, dialogue: str = "", counts: dict[str, float] | None = None, **scores: float) -> Outcome:
    return Outcome(
        example_id=str(number), scores=scores, answer="a", reference="a", dialogue=dialogue, counts=counts or {}
    )


@settings(max_examples=25)
@given(st.lists(st.tuples(labels.filter(lambda label: label[0] != "("), labels), min_size=1, max_size=30))
def test_macro_f1_is_scikit_learns_over_the_labels_that_occur(pairs: list[tuple[str, str]]) -> None:
    references, answers = map(list, zip(*pairs, strict=True))
    found = macro_f1(references, answers)
    oracle = f1_score(references, answers, labels=sorted(set(references)), average="macro", zero_division=0)
    assert found.value == pytest.approx(oracle)
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.n == len(pairs)


def test_a_ratio_is_of_sums_and_its_interval_holds_as_often_as_it_says() -> None:
    assert ratio([1, 0, 3], [2, 0, 4], ["a", "b", "c"]).value == pytest.approx(4 / 6)
    assert ratio([1, 0, 3], [2, 0, 4], ["a", "b", "c"]).n == 6
    rng = np.random.default_rng(3)
    hits = 0
    for seed in range(100):
        wholes = rng.integers(1, 5, 120)
        chance = rng.beta(6, 2, 120)  # calls differ in how hard they are, arguments of one do not: mean 0.75
        found = ratio(rng.binomial(wholes, chance).tolist(), wholes.tolist(), list(map(str, range(120))), seed)
        hits += found.low <= 0.75 <= found.high
    assert 88 <= hits <= 100


def test_turns_of_one_dialogue_are_no_independent_items() -> None:
    draw = random.Random(1)
    alike = [float(draw.random() < 0.7) for _ in range(40)]
    values = [value for value in alike for _ in range(5)]
    together = ratio(values, [1] * 200, [str(at // 5) for at in range(200)])
    apart = ratio(values, [1] * 200, [str(at) for at in range(200)])
    assert together.value == apart.value
    assert together.high - together.low > 1.8 * (apart.high - apart.low)


def test_all_right_leaves_the_doubt_that_so_many_clusters_leave() -> None:
    found = ratio([5] * 10, [5] * 10, list("abcdefghij"))
    assert (found.value, found.n, found.high) == (1, 50, 1)
    assert found.low == pytest.approx(0.722, abs=0.01)  # Wilson's for 10 of 10, not for 50 of 50
    assert ratio([], [], []).n == 0 and ratio([0], [0], ["a"]).high == 1


def test_a_metric_is_a_mean_over_the_items_to_which_it_applies() -> None:
    found = measures([outcome(1, intent_accuracy=1), outcome(2, intent_accuracy=0, intent_out_of_scope=0)], "intent")
    assert list(found) == ["intent_accuracy", "intent_out_of_scope", "intent_macro_f1"]
    assert (found["intent_accuracy"].n, found["intent_out_of_scope"].n) == (2, 1)


def test_arguments_are_counted_over_all_calls() -> None:
    counts = {
        "arguments_said": 4.0,
        "arguments_said_right": 1.0,
        "arguments_wanted": 2.0,
        "arguments_wanted_right": 1.0,
    }
    more = {"arguments_said": 0.0, "arguments_wanted": 2.0}
    found = measures(
        [outcome(1, counts=counts, function_exact=0), outcome(2, counts=more, function_exact=0)], "function_call"
    )
    assert (found["argument_precision"].value, found["argument_recall"].value) == (0.25, 0.25)
    assert "carried_recall" not in found and "dialogue_right" not in found


def test_a_dialogue_is_right_when_all_of_its_turns_are() -> None:
    turns = [
        outcome(1, "d1", function_exact=1, function_right=1),
        outcome(2, "d1", function_exact=0, function_right=1),
        outcome(3, "d2", function_exact=1, function_right=1),
        outcome(4, "d2", function_exact=0, function_right=0),
    ]
    assert dialogues(turns, "function_right") == {"d1": 1, "d2": 0}
    found = measures(turns, "function_call")
    assert (found["dialogue_right"].value, found["dialogue_right"].n) == (0.5, 2)
    assert (found["function_right"].value, found["function_right"].n) == (0.75, 4)
