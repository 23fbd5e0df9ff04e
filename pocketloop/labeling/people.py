"""What people said of answers, and how a judge compares with it."""

from collections import Counter
from collections.abc import Iterable

from pocketloop.contracts.errors import LabelQualityError
from pocketloop.contracts.labels import HumanVerdict, Says
from pocketloop.contracts.recipe import LabelConfig
from pocketloop.contracts.reports import Agreed
from pocketloop.labeling.agreement import Table, agreement
from pocketloop.labeling.extract import Candidate
from pocketloop.labeling.judges import Verdict

_SOURCES = ("thumbs", "file", "mlflow")


class People:
    """People's verdicts on one rubric, and the user's own thumb where nobody else has spoken.

    Several raters of one answer are counted out; where they are split evenly, nobody has spoken.
    """

    def __init__(self, verdicts: Iterable[HumanVerdict], rubric: str) -> None:
        self._rubric = rubric
        self._tables: dict[str, Table] = {source: [[0, 0], [0, 0]] for source in _SOURCES}
        votes: dict[str, dict[str, Counter[Says]]] = {source: {} for source in _SOURCES}
        counted: set[tuple[str, str]] = set()
        for verdict in verdicts:
            key = verdict.event_id or verdict.example_id or ""
            if verdict.rubric == rubric:
                votes[verdict.source].setdefault(key, Counter())[verdict.verdict] += 1
                if verdict.drawn == "random":
                    counted.add((verdict.source, key))
        self._said = {source: _majorities(found) for source, found in votes.items()}
        self._counted = counted
        self._overall = _majorities(_merged(votes.values()))
        self.disagreements = 0

    def __len__(self) -> int:
        """Answers on which people, their own users apart, have spoken."""
        return len(self._overall)

    def on(self, key: str) -> Says | None:
        """What people said of the event or example called `key`."""
        return self._overall.get(key)

    def of(self, candidate: Candidate) -> Says | None:
        """What people said of the answer; what raters say counts before the user's thumb."""
        return self._overall.get(candidate.event_id) or _thumb(candidate)

    def compare(self, candidate: Candidate, verdict: Verdict) -> bool:
        """Count the judge's word beside people's; returns whether they differ."""
        if verdict.verdict == "unsure":
            return False
        key = candidate.event_id
        words: dict[str, Says | None] = {source: said.get(key) for source, said in self._said.items()}
        words["thumbs"] = _thumb(candidate)
        for source, word in words.items():
            if word is not None and (source == "thumbs" or (source, key) in self._counted):
                self._tables[source][verdict.verdict == "right"][word == "right"] += 1
        differ = self.of(candidate) not in (None, verdict.verdict)
        self.disagreements += differ
        return differ

    def agreed(self) -> list[Agreed]:
        """Kappa by where people's answers come from; the users' thumbs are always told."""
        found = []
        for source in _SOURCES:
            result = agreement(self._tables[source])
            if result.n or source == "thumbs":
                found.append(
                    Agreed(
                        rubric=self._rubric,
                        source=source,
                        n=result.n,
                        kappa=result.kappa,
                        interval=result.interval,
                    )
                )
        return found


def demand(agreed: list[Agreed], judge: str, config: LabelConfig) -> None:
    """Refuse a judge that agrees too little with enough of people's answers.

    Raises:
        LabelQualityError: `min_kappa` is missed on at least `min_rated` answers of one source.
    """
    for found in agreed:
        if found.n < config.min_rated or found.kappa is None or found.kappa >= config.min_kappa:
            continue
        low, high = found.interval or (found.kappa, found.kappa)
        raise LabelQualityError(
            f"the judge `{judge}` agrees too little with people ({found.source}, rubric {found.rubric}): kappa "
            f"{found.kappa:.2f} (95 % interval {low:.2f} to {high:.2f}) on {found.n} rated answers, label.min_kappa is "
            f"{config.min_kappa}. Check that the catalogue is the one the phones use, look at disagreements "
            "(`pocketloop labels disagreements`), sharpen the rubric, or lower label.min_kappa knowingly"
        )


def _thumb(candidate: Candidate) -> Says | None:
    return {"up": "right", "down": "wrong", None: None}[candidate.person]


def _merged(sources: Iterable[dict[str, Counter[Says]]]) -> dict[str, Counter[Says]]:
    merged: dict[str, Counter[Says]] = {}
    for votes in sources:
        for key, counts in votes.items():
            merged.setdefault(key, Counter()).update(counts)
    return merged


def _majorities(votes: dict[str, Counter[Says]]) -> dict[str, Says]:
    words: dict[str, Says] = {}
    for key, counts in votes.items():
        if counts["right"] != counts["wrong"]:
            words[key] = "right" if counts["right"] > counts["wrong"] else "wrong"
    return words
