"""Whose answers a judge prefers, with position and length taken out."""

import numpy as np
import pytest
import statsmodels.api as sm

from pocketloop.contracts.events import Message
from pocketloop.contracts.labels import Duel, Preferred
from pocketloop.contracts.reports import JudgeUse
from pocketloop.evaluation.measures import measures
from pocketloop.evaluation.preference import even_length, judged_counts, preference_report
from pocketloop.evaluation.suite import Outcome

USE = JudgeUse(
    model="m",
    rubric="r",
    asked=0,
    cached=0,
    inconsistent=0,
    failed=0,
    tokens=0,
    unfinished=0,
    why="the budget is spent",
)


def duel(ours: int, theirs: int) -> Duel:
    """Answers of so many words."""
    said = [Message(role="assistant", content=" ".join([word] * n)) for word, n in (("a", ours), ("b", theirs))]
    return Duel([Message(role="user", content="x")], said[0], said[1])


def drawn(n: int, seed: int, skill: float, slope: float) -> tuple[list[float], list[float]]:
    """Wins and differences in length: longer by five words on average, and how much length helps."""
    rng = np.random.default_rng(seed)
    longer = rng.normal(5, 8, n)
    chance = 1 / (1 + np.exp(-(skill + slope * np.tanh(longer / longer.std()))))
    return (rng.random(n) < chance).astype(float).tolist(), longer.tolist()


def test_a_verdict_that_follows_the_order_is_half_a_win_and_shows_as_position_bias() -> None:
    duels = [duel(3, 2), duel(2, 3), duel(4, 2), duel(5, 5)]
    verdicts = [Preferred(True, True), Preferred(False, False), Preferred(True, False), Preferred(True, False)]
    found = preference_report(duels, verdicts, USE)
    assert found is not None
    assert (found.n, found.win_rate.value, found.consistent.value) == (4, 0.5, 0.5)
    assert found.first_shown.value == 0.75  # both orders of the last two, one of two of the first two
    assert found.longer_wins.value == 1 and found.longer == 0.5


def test_equal_answers_are_half_a_win_each_and_pairs_without_a_verdict_are_counted() -> None:
    same = Duel([], Message(role="assistant", content="yes"), Message(role="assistant", content=" yes "))
    found = preference_report([same, duel(1, 2), duel(1, 2)], [None, Preferred(True, True), None], USE)
    assert found is not None
    assert (found.n, found.equal, found.unjudged, found.why) == (2, 1, 1, "the budget is spent")
    assert found.win_rate.value == 0.75
    assert preference_report([duel(1, 2)], [None], USE) is None


def test_a_candidate_that_only_says_more_wins_often_and_not_at_equal_length() -> None:
    wins, longer = drawn(800, 1, skill=0.0, slope=2.0)
    assert np.mean(wins) > 0.6
    found = even_length(wins, longer)
    assert found.low <= 0.5 <= found.high
    better, longer = drawn(800, 2, skill=1.0, slope=2.0)
    found = even_length(better, longer)
    assert found.low <= 1 / (1 + np.exp(-1.0)) <= found.high


def test_the_win_rate_at_equal_length_is_a_logistic_regressions() -> None:
    wins, longer = drawn(300, 3, skill=0.4, slope=1.0)
    length = np.tanh(np.array(longer) / np.std(longer))
    padded = np.concatenate([length, [0, 0]])
    fitted = sm.GLM([*wins, 1, 0], sm.add_constant(padded), family=sm.families.Binomial()).fit()
    assert even_length(wins, longer).value == pytest.approx(1 / (1 + np.exp(-fitted.params[0])), abs=0.005)


def test_length_that_decides_everything_or_never_differs_gives_a_finite_rate() -> None:
    sweep = even_length([1.0, 0.0] * 20, [5.0, -5.0] * 20)
    assert sweep.value == pytest.approx(0.5, abs=0.01)
    assert even_length([1.0, 0.5, 0.0, 1.0], [0.0] * 4).value == 0.625
    assert even_length([], []).n == 0


def test_the_win_rates_follow_from_what_outcomes_keep_of_each_pair() -> None:
    same = Duel([], Message(role="assistant", content="yes"), Message(role="assistant", content="yes"))
    duels = [duel(3, 2), same, duel(2, 5), duel(4, 2)]
    verdicts = [Preferred(True, True), None, Preferred(True, False), None]
    counts = judged_counts(duels, verdicts)
    assert counts == [{"won": 1, "longer": 1}, {"won": 0.5, "longer": 0}, {"won": 0.5, "longer": -3}, {}]
    rows = [
        Outcome(example_id=str(at), scores={"chat_right": 1}, answer="", reference="", counts=one)
        for at, one in enumerate(counts)
    ]
    found, report = measures(rows, "chat"), preference_report(duels, verdicts, USE)
    assert report is not None and found["chat_win_rate"].n == 3
    assert (found["chat_win_rate"], found["chat_win_rate_even_length"]) == (report.win_rate, report.even_length)
