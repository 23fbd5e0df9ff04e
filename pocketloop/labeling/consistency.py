"""Labels that everything else in the data speaks against.

A plain classifier (TF-IDF of words and letters, logistic regression) predicts each item's label without having seen
its group. Where it is confidently of another opinion, the given label is doubted: confident learning (Northcutt, Jiang
and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021).
"""

import hashlib
import heapq
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pocketloop.labeling.words import COLUMNS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FOLDS = 5
SAMPLE = 20_000
"""Items that the classifier is trained on: more cost time and memory, and hardly make it any better."""

_WEIGHTS = 120_000
"""Most weights of one classifier (features times labels): fitting takes time in proportion."""

Opinion = Literal["agrees", "doubts", "cannot tell"]


class Labelled(NamedTuple):
    """An item: its own name, the shard and row of its counts, the label that was given, and who said it."""

    key: str
    shard: int
    row: int
    label: str
    group: str


class Consistency:
    """Opinions on any number of items, learned from at most `sample` of them.

    Items are chosen by the hash of their keys, and each is judged by a classifier that learned from no item of its
    group: results depend neither on the order nor on how items are dealt out in chunks.
    """

    def __init__(self, counts: "Callable[[int], csr_matrix]", sample: int = SAMPLE) -> None:
        """`counts` reads a shard's counts (`words.counts_of`)."""
        self._counts = counts
        self._bound = sample
        self._sample: list[tuple[int, Labelled]] = []  # a heap: the largest hash on top
        self._model: _Folds | None = None

    def see(self, item: Labelled) -> None:
        """Take an item into account, before `settle`."""
        entry = (-_hash(item.key), item)
        if len(self._sample) < self._bound:
            heapq.heappush(self._sample, entry)
        elif entry > self._sample[0]:
            heapq.heapreplace(self._sample, entry)

    def settle(self) -> None:
        """Learn from what was seen."""
        items = sorted((item for _, item in self._sample), key=lambda item: (item.shard, item.row))
        self._sample = []
        names = _names(items)
        if len(names) >= 2:
            known = [item for item in items if item.label in set(names)]
            self._model = _Folds(self._rows(known), known, names)

    def opinions(self, items: Sequence[Labelled]) -> list[Opinion]:
        """What an out-of-fold classifier thinks of each item's label; items of one shard belong together.

        `doubts` where another label's probability reaches that label's own threshold (the mean probability that it
        gets where it is given) and is the largest to do so; or where another label has at least 0.5 and the given one
        less than 0.1. `cannot tell` for labels that fewer than five groups give: no fold could learn them.
        """
        result: list[Opinion] = ["cannot tell"] * len(items)
        known = [at for at, item in enumerate(items) if self._model and item.label in self._model.place]
        if self._model and known:
            chosen = [items[at] for at in known]
            for at, doubt in zip(known, self._model.doubts(self._rows(chosen), chosen), strict=True):
                result[at] = "doubts" if doubt else "agrees"
        return result

    def _rows(self, items: Sequence[Labelled]) -> "csr_matrix":
        from scipy.sparse import vstack

        shards = groupby(items, key=lambda item: item.shard)
        return vstack([self._counts(shard)[[item.row for item in members]] for shard, members in shards], format="csr")


class _Folds:
    """Classifiers that were fitted on a sample, one for each fold of groups, over one set of features."""

    def __init__(self, counts: "csr_matrix", items: list[Labelled], names: list[str]) -> None:
        import warnings

        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        self.place = {name: at for at, name in enumerate(names)}
        groups = sorted({item.group for item in items}, key=lambda group: (_hash(group), group))
        self._dealt = {group: at % FOLDS for at, group in enumerate(groups)}
        self._features = _Features(counts, most=_WEIGHTS // len(names) // 2)
        matrix, given, folds = self._features(counts), self._given(items), self._folds(items)
        self._models: list[Any] = []
        # The matrices are small: more threads only spin (ten times the processor time on two busy cores).
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # thirty iterations are enough
            for fold in range(FOLDS):
                others = folds != fold
                told_apart = len(np.unique(given[others])) >= 2
                model = LogisticRegression(C=5.0, max_iter=30)
                self._models.append(model.fit(matrix[others], given[others]) if told_apart else None)
            probability = self._probability(matrix, folds)
        self._thresholds = _thresholds(probability, given)

    def doubts(self, counts: "csr_matrix", items: list[Labelled]) -> Any:
        """Whether each item's label is doubted."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            probability = self._probability(self._features(counts), self._folds(items))
        return _doubted(probability, self._given(items), self._thresholds)

    def _given(self, items: list[Labelled]) -> Any:
        import numpy as np

        return np.array([self.place[item.label] for item in items])

    def _folds(self, items: list[Labelled]) -> Any:
        """The fold of each item's group; a group that nothing was learned from may fall to any."""
        import numpy as np

        return np.array([self._dealt.get(item.group, _hash(item.group) % FOLDS) for item in items])

    def _probability(self, matrix: Any, folds: Any) -> Any:
        import numpy as np

        probability = np.zeros((matrix.shape[0], len(self.place)))
        for fold, model in enumerate(self._models):
            rows = np.flatnonzero(folds == fold)
            if len(rows) and model is not None:
                probability[np.ix_(rows, model.classes_)] = model.predict_proba(matrix[rows])
        return probability


class _Features:
    """TF-IDF of the most frequent words, and of the most frequent runs of letters, `most` of each."""

    def __init__(self, counts: "csr_matrix", most: int) -> None:
        from sklearn.feature_extraction.text import TfidfTransformer

        self._columns = [start + _frequent(part, most) for start, part in _halves(counts)]
        self._weights = [TfidfTransformer(sublinear_tf=True).fit(counts[:, columns]) for columns in self._columns]

    def __call__(self, counts: "csr_matrix") -> Any:
        from scipy.sparse import hstack

        parts = zip(self._columns, self._weights, strict=True)
        return hstack([weights.transform(counts[:, columns]) for columns, weights in parts], format="csr")


def _halves(counts: "csr_matrix") -> list[tuple[int, Any]]:
    import numpy as np

    totals = np.asarray(counts.sum(axis=0)).ravel()
    return [(0, totals[:COLUMNS]), (COLUMNS, totals[COLUMNS:])]


def _frequent(totals: Any, most: int) -> Any:
    """The columns that count most, in order."""
    import numpy as np

    ranked = np.argsort(-totals, kind="stable")[:most]
    return np.sort(ranked[totals[ranked] > 0])


def _names(items: list[Labelled]) -> list[str]:
    """The labels that enough groups give for every fold to learn them."""
    spread: dict[str, set[str]] = {}
    for item in items:
        spread.setdefault(item.label, set()).add(item.group)
    return sorted(label for label, members in spread.items() if len(members) >= FOLDS)


def _thresholds(probability: Any, given: Any) -> Any:
    """The mean probability that each label gets where it is given; none is reached by a label never given."""
    import numpy as np

    means = [probability[given == at, at].mean() if (given == at).any() else np.inf for at in range(len(probability.T))]
    return np.array(means)


def _doubted(probability: Any, given: Any, thresholds: Any) -> Any:
    import numpy as np

    confident = np.where(probability >= thresholds, probability, -1.0)
    by_threshold = (confident.max(axis=1) >= 0) & (confident.argmax(axis=1) != given)
    of_given = probability[np.arange(len(given)), given]
    by_odds = (probability.argmax(axis=1) != given) & (probability.max(axis=1) >= 0.5) & (of_given < 0.1)
    return by_threshold | by_odds


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
