"""Labels that everything else in the data speaks against.

A plain classifier (TF-IDF of words and letters, logistic regression) predicts each item's label without having seen
its group. Where it is confidently of another opinion, the given label is doubted: confident learning (Northcutt, Jiang
and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021).
"""

from typing import Any, Literal

from pocketloop.privacy.placeholders import PLACEHOLDER

FOLDS = 5
Opinion = Literal["agrees", "doubts", "cannot tell"]


def opinions(texts: list[str], labels: list[str], groups: list[str], seed: int = 0) -> list[Opinion]:
    """What an out-of-fold classifier thinks of each label.

    `doubts` where another label's probability reaches that label's own threshold (the mean probability that it gets
    where it is given) and is the largest to do so; or where another label has at least 0.5 and the given one less
    than 0.1. `cannot tell` for labels that fewer than five groups give: no fold could learn them.
    """
    import numpy as np

    spread: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        spread.setdefault(label, set()).add(group)
    names = sorted(label for label, members in spread.items() if len(members) >= FOLDS)
    chosen = [at for at, label in enumerate(labels) if label in set(names)]
    result: list[Opinion] = ["cannot tell"] * len(labels)
    if len(names) < 2:
        return result
    given = np.array([names.index(labels[at]) for at in chosen])
    shown = [PLACEHOLDER.sub(r" \1 ", texts[at]) for at in chosen]
    probability = _out_of_fold(shown, given, [groups[at] for at in chosen], seed)
    threshold = np.array([probability[given == label, label].mean() for label in range(len(names))])
    confident = np.where(probability >= threshold, probability, -1.0)
    best = confident.argmax(axis=1)
    by_threshold = (confident.max(axis=1) >= 0) & (best != given)
    of_given = probability[np.arange(len(given)), given]
    by_odds = (probability.argmax(axis=1) != given) & (probability.max(axis=1) >= 0.5) & (of_given < 0.1)
    for at, doubted in zip(chosen, by_threshold | by_odds, strict=True):
        result[at] = "doubts" if doubted else "agrees"
    return result


def _out_of_fold(texts: list[str], given: Any, groups: list[str], seed: int) -> Any:
    """Array (items, labels) of probabilities, each row from a model that saw no item of the row's group."""
    import warnings

    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline, make_union
    from threadpoolctl import threadpool_limits

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),  # people mistype
    )
    model = make_pipeline(features, LogisticRegression(C=5.0, max_iter=30))
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    # The matrices are small: more threads only spin (ten times the processor time on two busy cores).
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # thirty iterations are enough; a fold without some label counts it as 0
        return cross_val_predict(model, texts, given, groups=groups, cv=folds, method="predict_proba")
