"""Whose answers a judge prefers: the win rate against the champion, without what position and length add to it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pocketloop.contracts.events import Message
from pocketloop.contracts.labels import Duel, Preferred
from pocketloop.contracts.reports import Estimate, JudgeUse, PreferenceReport
from pocketloop.evaluation.statistics import estimate
from pocketloop.tasks.answers import write_answer

if TYPE_CHECKING:
    import numpy

_RESAMPLES = 200


def preference_report(
    duels: Sequence[Duel], verdicts: Sequence[Preferred | None], use: JudgeUse
) -> PreferenceReport | None:
    """The report over all pairs; `verdicts` in their order. `None`: nothing was judged and nothing is equal."""
    equal = [_said(duel.ours) == _said(duel.theirs) for duel in duels]
    pairs = list(zip(duels, verdicts, equal, strict=True))
    known = [(duel, verdict) for duel, verdict, same in pairs if verdict is not None and not same]
    if not known and not any(equal):
        return None
    wins = [(verdict.when_first + verdict.when_second) / 2 for _, verdict in known]
    longer = [_words(duel.ours) - _words(duel.theirs) for duel, _ in known]
    counted = [counts for counts in judged_counts(duels, verdicts) if counts]
    ties = sum(equal)
    settled = [(win, more) for win, more in zip(wins, longer, strict=True) if win != 0.5 and more]
    shown_first = [verdict.when_first + (not verdict.when_second) for _, verdict in known]
    return PreferenceReport(
        n=len(known) + ties,
        equal=ties,
        unjudged=len(pairs) - len(known) - ties,
        why=use.why,
        win_rate=estimate([counts["won"] for counts in counted]),
        even_length=even_length([counts["won"] for counts in counted], [counts["longer"] for counts in counted]),
        first_shown=estimate([count / 2 for count in shown_first]),
        consistent=estimate([float(win != 0.5) for win in wins]),
        longer_wins=estimate([float((win == 1) == (more > 0)) for win, more in settled]),
        longer=math.fsum(longer) / len(known) if known else 0.0,
        use=use,
    )


def judged_counts(duels: Sequence[Duel], verdicts: Sequence[Preferred | None]) -> list[dict[str, float]]:
    """By pair, what an outcome keeps of it: `won` (0, 0.5 or 1) and by how many words we are `longer`.

    Equal answers are half a win whatever was said of them; a pair without a verdict has nothing.
    """
    found: list[dict[str, float]] = []
    for duel, verdict in zip(duels, verdicts, strict=True):
        if _said(duel.ours) == _said(duel.theirs):
            found.append({"won": 0.5, "longer": 0.0})
        elif verdict is None:
            found.append({})
        else:
            won = (verdict.when_first + verdict.when_second) / 2
            found.append({"won": won, "longer": float(_words(duel.ours) - _words(duel.theirs))})
    return found


def even_length(wins: Sequence[float], longer: Sequence[float], seed: int = 0) -> Estimate:
    """The win rate between answers of equal length, with a bootstrap 95 % interval.

    A logistic regression of winning on tanh(difference in length / its standard deviation), read off where the
    difference is zero: the length term of AlpacaEval 2 (Dubois et al., "Length-Controlled AlpacaEval", 2024), without
    its terms for the difficulty of instructions, which need many models. One pair won and one lost are added at no
    difference, so that a clean sweep stays finite.

    Args:
        wins: 1, 0, or 0.5 for a verdict that follows the order.
        longer: by how many words our answer is longer.
        seed: of the resamples.
    """
    import numpy as np

    n = len(wins)
    if n == 0:
        return Estimate(value=0.0, n=0, low=0.0, high=1.0)
    won, difference = np.asarray(wins, dtype=np.float64), np.asarray(longer, dtype=np.float64)
    spread = difference.std()
    if spread == 0:  # nothing to control for
        return estimate(list(wins))
    length = np.tanh(difference / spread)
    draw = np.random.default_rng(seed)
    drawn = [_at_zero(won[at], length[at]) for at in draw.integers(0, n, (_RESAMPLES, n))]
    value = _at_zero(won, length)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value=value, n=n, low=min(float(low), value), high=max(float(high), value))


def _at_zero(won: "numpy.ndarray", length: "numpy.ndarray") -> float:
    """The fitted chance to win at a length difference of zero; a verdict of 0.5 is half a win and half a loss."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    won, length = np.concatenate([won, [1.0, 0.0]]), np.concatenate([length, [0.0, 0.0]])
    labels = np.repeat([1, 0], len(won))
    # A weak prior on the slope alone: where length decides every verdict, there is no finite one.
    model = LogisticRegression(C=10.0)
    model.fit(np.tile(length, 2)[:, None], labels, sample_weight=np.concatenate([won, 1 - won]))
    return float(model.predict_proba(np.zeros((1, 1)))[0, 1])


def _said(message: Message) -> str:
    return write_answer(message).strip()


def _words(message: Message) -> int:
    return len(_said(message).split())
