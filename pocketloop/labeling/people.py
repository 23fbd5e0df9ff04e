"""What people said of answers, and how a judge compares with it."""

import heapq
from collections import Counter
from collections.abc import Iterable

from pocketloop.contracts.errors import LabelQualityError
from pocketloop.contracts.files import sha256_text
from pocketloop.contracts.labels import ForPeople, HumanVerdict, Says
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import LabelConfig
from pocketloop.contracts.reports import Agreed
from pocketloop.labeling.agreement import Table, agreement
from pocketloop.labeling.extract import Answered, EventFiles, thumb_of
from pocketloop.labeling.judges import Judge, Verdict
from pocketloop.labeling.rows import Row

SHOWN = 25
"""Answers of each kind that one run shows to people."""

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

    def of(self, candidate: Answered) -> Says | None:
        """What people said of the answer; what raters say counts before the user's thumb."""
        return self._overall.get(candidate.event_id) or thumb_of(candidate)

    def compare(self, candidate: Answered, verdict: Verdict) -> bool:
        """Count the judge's word beside people's; returns whether they differ."""
        if verdict.verdict == "unsure":
            return False
        key = candidate.event_id
        words: dict[str, Says | None] = {source: said.get(key) for source, said in self._said.items()}
        words["thumbs"] = thumb_of(candidate)
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


class Drawn:
    """Picks the answers that people are to look at: those on which judge and user differ, and some drawn at random.

    The latter are shown without the judge's word: only what people say unaware of it tells how far both agree. Which
    ones is decided by the hash of the event's id, so that a later run shows the same ones again, and few new ones.
    """

    def __init__(self, events: EventFiles, task: Task, judge: Judge) -> None:
        self._events = events
        self._task = task
        self._judge = judge
        self._heaps: dict[str, list[tuple[int, str, ForPeople]]] = {"disagreement": [], "random": []}

    def see(self, row: Row, verdict: Verdict, said: Says | None, differ: bool) -> None:
        """Take an answer into account, with the judge's word and what its user said."""
        if verdict.verdict == "unsure":
            return
        place = int(sha256_text(row.key)[:15], 16)
        for why in ("disagreement", "random") if differ else ("random",):
            heap = self._heaps[why]
            if len(heap) < SHOWN:
                heapq.heappush(heap, (-place, row.key, self._row(row, verdict, said, why)))
            elif -place > heap[0][0]:
                heapq.heapreplace(heap, (-place, row.key, self._row(row, verdict, said, why)))

    def rows(self) -> list[ForPeople]:
        """At most `SHOWN` of each kind; one that was drawn as both is shown as drawn at random."""
        drawn = {event_id for _, event_id, _ in self._heaps["random"]}
        found = [row for heap in self._heaps.values() for _, _, row in sorted(heap, key=lambda entry: -entry[0])]
        return [row for row in found if row.why == "random" or row.event_id not in drawn]

    def _row(self, row: Row, verdict: Verdict, said: Says | None, why: str) -> ForPeople:
        candidate = self._events.at(row.place)
        return ForPeople.model_validate(
            {
                "event_id": candidate.event_id,
                "group": candidate.group,
                "task": self._task,
                "rubric": self._judge.rubric,
                "judge": self._judge.name,
                "messages": [*candidate.prompt, candidate.answer],
                "says": verdict.verdict,
                "reason": verdict.reason,
                "person": said,
                "why": why,
            }
        )


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
