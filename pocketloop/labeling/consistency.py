"""Labels that everything else in the data speaks against.

A plain classifier (TF-IDF of words and letters, logistic regression) predicts each item's label without having seen
its group. Where it is confidently of another opinion, the given label is doubted: confident learning (Northcutt, Jiang
and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021).
"""

import hashlib
import heapq
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pocketloop.privacy.placeholders import PLACEHOLDER

FOLDS = 5
SAMPLE = 20_000
"""Items that the classifier is trained on: more cost time and memory, and hardly make it any better."""

_WEIGHTS = 1_500_000
"""Most weights of one classifier (features times labels): fitting takes some 200 bytes for each."""

Opinion = Literal["agrees", "doubts", "cannot tell"]


class Labelled(NamedTuple):
    """An item: its own name, what was said, the label that was given, and who said it."""

    key: str
    text: str
    label: str
    group: str


class Consistency:
    """Opinions on any number of items, learned from at most `sample` of them.

    Up to `sample` items, each is judged by a classifier that learned from all others but its group's. Beyond, the
    classifiers learn from items chosen by the hash of their keys, and an item is judged by one that saw no item of
    its group: results depend neither on the order nor on how items are dealt out in chunks.
    """

    def __init__(self, sample: int = SAMPLE, seed: int = 0) -> None:
        self._bound = sample
        self._seed = seed
        self._seen = 0
        self._sample: list[tuple[int, int, Labelled]] = []  # a heap: the largest hash on top
        self._known: dict[str, Opinion] | None = None
        self._model: _Folds | None = None

    def see(self, item: Labelled) -> None:
        """Take an item into account, before `settle`."""
        self._seen += 1
        entry = (-_hash(item.key), self._seen, item)
        if len(self._sample) < self._bound:
            heapq.heappush(self._sample, entry)
        elif entry > self._sample[0]:
            heapq.heapreplace(self._sample, entry)

    def settle(self) -> None:
        """Learn from what was seen."""
        items = [item for _, _, item in sorted(self._sample, key=lambda entry: entry[1])]
        self._sample = []
        if self._seen <= self._bound:
            told = opinions([i.text for i in items], [i.label for i in items], [i.group for i in items], self._seed)
            self._known = {item.key: opinion for item, opinion in zip(items, told, strict=True)}
        else:
            names = _names([item.label for item in items], [item.group for item in items])
            if len(names) >= 2:
                self._model = _Folds([item for item in items if item.label in set(names)], names)

    def opinions(self, items: Sequence[Labelled]) -> list[Opinion]:
        """What is thought of each item's label; as `opinions` below."""
        if self._known is not None:
            return [self._known[item.key] for item in items]
        if self._model is None:
            return ["cannot tell"] * len(items)
        return self._model.opinions(items)


def opinions(texts: list[str], labels: list[str], groups: list[str], seed: int = 0) -> list[Opinion]:
    """What an out-of-fold classifier thinks of each label.

    `doubts` where another label's probability reaches that label's own threshold (the mean probability that it gets
    where it is given) and is the largest to do so; or where another label has at least 0.5 and the given one less
    than 0.1. `cannot tell` for labels that fewer than five groups give: no fold could learn them.
    """
    import numpy as np

    names = _names(labels, groups)
    place = {name: at for at, name in enumerate(names)}
    chosen = [at for at, label in enumerate(labels) if label in place]
    result: list[Opinion] = ["cannot tell"] * len(labels)
    if len(names) < 2:
        return result
    given = np.array([place[labels[at]] for at in chosen])
    probability = _out_of_fold([_shown(texts[at]) for at in chosen], given, [groups[at] for at in chosen], seed)
    doubted = _doubted(probability, given, _thresholds(probability, given))
    for at, doubt in zip(chosen, doubted, strict=True):
        result[at] = "doubts" if doubt else "agrees"
    return result


class _Folds:
    """Classifiers that were fitted on a sample, one for each fold of groups, over one set of features."""

    def __init__(self, items: list[Labelled], names: list[str]) -> None:
        import warnings

        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        self._place = {name: at for at, name in enumerate(names)}
        self._features = _features(len(names))
        given = np.array([self._place[item.label] for item in items])
        folds = np.array([_fold(item.group) for item in items])
        matrix = self._features.fit_transform([_shown(item.text) for item in items])
        self._models = []
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # thirty iterations are enough
            for fold in range(FOLDS):
                model = LogisticRegression(C=5.0, max_iter=30)
                self._models.append(model.fit(matrix[folds != fold], given[folds != fold]))
            probability = self._probability(matrix, folds)
        self._thresholds = _thresholds(probability, given)

    def opinions(self, items: Sequence[Labelled]) -> list[Opinion]:
        import numpy as np
        from threadpoolctl import threadpool_limits

        known = [at for at, item in enumerate(items) if item.label in self._place]
        result: list[Opinion] = ["cannot tell"] * len(items)
        if not known:
            return result
        given = np.array([self._place[items[at].label] for at in known])
        folds = np.array([_fold(items[at].group) for at in known])
        with threadpool_limits(1):
            matrix = self._features.transform([_shown(items[at].text) for at in known])
            probability = self._probability(matrix, folds)
        for at, doubt in zip(known, _doubted(probability, given, self._thresholds), strict=True):
            result[at] = "doubts" if doubt else "agrees"
        return result

    def _probability(self, matrix: Any, folds: Any) -> Any:
        import numpy as np

        probability = np.zeros((matrix.shape[0], len(self._place)))
        for fold, model in enumerate(self._models):
            rows = np.flatnonzero(folds == fold)
            if len(rows):
                probability[np.ix_(rows, model.classes_)] = model.predict_proba(matrix[rows])
        return probability


def _names(labels: list[str], groups: list[str]) -> list[str]:
    """The labels that enough groups give for every fold to learn them."""
    spread: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        spread.setdefault(label, set()).add(group)
    return sorted(label for label, members in spread.items() if len(members) >= FOLDS)


def _shown(text: str) -> str:
    return PLACEHOLDER.sub(r" \1 ", text)


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


def _fold(group: str) -> int:
    return _hash(group) % FOLDS


def _features(labels: int) -> Any:
    """Words and letters; of many labels, only the more frequent ones fit into memory."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    most = _WEIGHTS // labels // 2
    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=most),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=most),  # people mistype
    )


def _out_of_fold(texts: list[str], given: Any, groups: list[str], seed: int) -> Any:
    """Array (items, labels) of probabilities, each row from a model that saw no item of the row's group."""
    import warnings

    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    model = make_pipeline(_features(given.max() + 1), LogisticRegression(C=5.0, max_iter=30))
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    # The matrices are small: more threads only spin (ten times the processor time on two busy cores).
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # thirty iterations are enough; a fold without some label counts it as 0
        return cross_val_predict(model, texts, given, groups=groups, cv=folds, method="predict_proba")
