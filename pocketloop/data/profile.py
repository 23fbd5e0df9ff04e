"""A release in numbers: how its records spread over days, people, answers and lengths; never what was said."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from pocketloop.contracts.files import read_jsonl
from pocketloop.contracts.names import Task
from pocketloop.data.descriptors import NAMES, NUMBERS, read_descriptors
from pocketloop.data.select.keys import label

EDGES = (0, 1, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 2560, 5120, 10240, 20480)
"""Bins of lengths, in characters: from one edge up to the next, the last one open. Fixed, so that releases compare."""

OTHER = "(other)"
_SIZES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100))
_MOST_NAMES = 30


class Spread(BaseModel):
    """How a number lies over the records: its mean, and its 5 %, 50 % and 95 % quantiles."""

    model_config = ConfigDict(extra="forbid")

    mean: float
    low: float
    median: float
    high: float


class Profile(BaseModel):
    """What a release's card draws, and what two releases are compared by."""

    model_config = ConfigDict(extra="forbid")

    days: dict[str, int] = Field(default_factory=dict)
    """Validated events by the UTC day on which they happened."""
    labels: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Examples by answer (label, function, or `call` and `text` in a chat), then by split."""
    sources: dict[str, int] = Field(default_factory=dict)
    """Examples by source."""
    per_device: dict[str, int] = Field(default_factory=dict)
    """Devices (groups with events) by how many examples they have (`3–5`)."""
    lengths: dict[str, list[int]] = Field(default_factory=dict)
    """Validated records by the length of `prompt` and `answer`, one count for each bin of `EDGES`."""
    numbers: dict[str, Spread] = Field(default_factory=dict)
    """Descriptors that are numbers."""
    names: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Descriptors that are names: the share of records by value, the most frequent ones."""


class Member(NamedTuple):
    """One record of a split, as `lineage.jsonl` lists it."""

    kind: str
    """`example`, `pair` or `rated`."""
    id: str
    split: str
    source: str
    group: str
    event_ids: list[str]
    answer: str
    """Name of the answer to learn; empty for pairs and rated answers."""

    def line(self) -> dict[str, Any]:
        """The line of `lineage.jsonl`."""
        return {
            f"{self.kind}_id": self.id,
            "split": self.split,
            "source": self.source,
            "group": self.group,
            "event_ids": self.event_ids,
        }


def members(splits: Path, task: Task) -> Iterator[Member]:
    """Every record of the splits, one at a time: examples, then preference pairs, then rated answers."""
    for kind, folder in (("example", splits), ("pair", splits / "pairs"), ("rated", splits / "rated")):
        for path in sorted(folder.glob("*.jsonl")):
            for row in read_jsonl(path):
                answer = label(task, row["messages"][-1]) if kind == "example" else ""
                yield Member(kind, row[f"{kind}_id"], path.stem, row["source"], row["group"], row["event_ids"], answer)


class Tally:
    """Counts over the members of a release, in one pass."""

    def __init__(self, known: frozenset[str]) -> None:
        """`known`: answers that may be named; any other could be somebody's words, and counts as `(other)`."""
        self._known = known
        self._counts: Counter[tuple[str, str]] = Counter()
        self._groups: Counter[str] = Counter()
        self._per_device: Counter[str] = Counter()
        self._imported: set[str] = set()
        self._events: set[str] = set()
        self._labels: dict[str, Counter[str]] = {}
        self._sources: Counter[str] = Counter()

    def add(self, member: Member) -> None:
        """Count one record."""
        self._counts[member.kind, member.split] += 1
        if member.kind == "example":
            answer = member.answer if member.answer in self._known else OTHER
            self._labels.setdefault(answer, Counter())[member.split] += 1
            self._sources[member.source] += 1
            self._groups[member.split] += member.group not in self._per_device and member.group not in self._imported
            if member.event_ids:
                self._per_device[member.group] += 1
            else:
                self._imported.add(member.group)
            self._events.update(member.event_ids)

    def count(self, kind: str, split: str) -> int:
        """Records of a kind in a split."""
        return self._counts[kind, split]

    def groups(self, split: str) -> int:
        """Groups that have examples in a split; each has them in one alone."""
        return self._groups[split]

    @property
    def events(self) -> int:
        """Different events of the log behind the examples."""
        return len(self._events)

    def profile(self, validated: Path) -> Profile:
        """The counts, with what the descriptors and the events in `validated` tell beside them."""
        lengths, numbers, names = _described(validated / "descriptors.parquet")
        answers = sorted(self._labels, key=lambda answer: (-self._labels[answer].total(), answer))
        return Profile(
            days=_days(validated),
            labels={answer: dict(sorted(self._labels[answer].items())) for answer in answers},
            sources=dict(sorted(self._sources.items())),
            per_device=_sizes(Counter(self._per_device.values())),
            lengths=lengths,
            numbers=numbers,
            names=names,
        )


def _days(validated: Path) -> dict[str, int]:
    days: Counter[str] = Counter()
    for path in sorted(validated.glob("events-*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in file:
                moment = datetime.fromisoformat(json.loads(line)["ts"])
                days[moment.astimezone(UTC).date().isoformat()] += 1
    return dict(sorted(days.items()))


def _sizes(sizes: Counter[int]) -> dict[str, int]:
    bins = {(str(low) if low == high else f"{low}–{high}"): (low, high) for low, high in _SIZES}
    counts = {name: sum(n for size, n in sizes.items() if low <= size <= high) for name, (low, high) in bins.items()}
    last = _SIZES[-1][1]
    return {**counts, f"> {last}": sum(n for size, n in sizes.items() if size > last)}


def _described(path: Path) -> tuple[dict[str, list[int]], dict[str, Spread], dict[str, dict[str, float]]]:
    """Lengths, numbers and names of the validated records, one column in memory at a time."""
    import numpy as np

    lengths: dict[str, list[int]] = {}
    numbers: dict[str, Spread] = {}
    names: dict[str, dict[str, float]] = {}
    for name in NUMBERS:
        values = read_descriptors(path, [name])[name].to_numpy("float64")
        if not len(values):
            continue
        low, median, high = (round(float(found), 4) for found in np.quantile(values, (0.05, 0.5, 0.95)))
        numbers[name] = Spread(mean=round(float(values.mean()), 4), low=low, median=median, high=high)
        if name.endswith("_characters"):
            counts, _ = np.histogram(values, [*EDGES, np.inf])
            lengths[name.removesuffix("_characters")] = counts.tolist()
    for name in NAMES:
        shares = read_descriptors(path, [name])[name].astype(str).value_counts(normalize=True)
        most = sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:_MOST_NAMES]
        names[name] = {value: round(float(share), 4) for value, share in most}
    return lengths, numbers, names
