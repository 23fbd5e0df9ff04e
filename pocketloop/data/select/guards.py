"""Guards against poisoning: what a few devices say should not become what every device does."""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pocketloop.contracts.reports import Guarded
from pocketloop.data.select.keys import label, number, phrasing
from pocketloop.data.select.table import Mask, Table

FEW_DEVICES = 3
"""One to this many devices are watched for a label that they give together."""
MIN_DEVICES = 20
"""With fewer devices in the whole selection nobody can be said to stand out."""
MIN_EXAMPLES = 20
"""A label of fewer examples from devices is rare, not dominated."""
MIN_FLIPPED = 5
"""Devices that must use a phrasing before a change of its answers counts as one."""


@dataclass(frozen=True)
class Guard:
    """What a guard saw, and the rows that it leaves out."""

    report: Guarded
    rows: Any
    """Numbers of rows, ascending."""


@dataclass(frozen=True)
class Past:
    """Phrasing and label of every example of the previous release; labels by their place in `labels`."""

    labels: list[str]
    template: Any
    label: Any

    @classmethod
    def of(cls, release: Path) -> "Past":
        """Read the splits of a release."""
        places: dict[str, int] = {}
        templates, found = array("Q"), array("l")
        for path in sorted((release / "splits").glob("*.jsonl")):
            with open(path, encoding="utf-8") as file:
                for row in map(json.loads, file):
                    templates.append(number(phrasing(row)))
                    found.append(places.setdefault(label(row["task"], row["messages"][-1]), len(places)))
        return cls(list(places), np.array(templates, dtype=np.uint64), np.array(found, dtype=np.int64))


def dominated(table: Table, alive: Mask, bound: float) -> list[Guard]:
    """Labels of which k devices (k up to `FEW_DEVICES`) give a larger share than 1 - (1 - bound)^k.

    Examples that came without a device count towards the label, but are nobody's. Of the devices that stand out every
    example of the label is left out.
    """
    from_devices = alive & (table.device != 0)
    guards: list[Guard] = []
    if len(np.unique(table.device[from_devices])) < MIN_DEVICES:
        return guards
    for at, name in enumerate(table.labels):
        of_label = table.label == at
        rows = np.flatnonzero(of_label & from_devices)
        if len(rows) < MIN_EXAMPLES:
            continue
        devices, counts = np.unique(table.device[rows], return_counts=True)
        ranked = np.argsort(-counts, kind="stable")[:FEW_DEVICES]
        total = int((of_label & alive).sum())
        shares = np.cumsum(counts[ranked]) / total
        bounds = 1 - (1 - bound) ** np.arange(1, len(shares) + 1)
        above = np.flatnonzero(shares > bounds)
        if len(above):
            few = int(above[0]) + 1
            left_out = rows[np.isin(table.device[rows], devices[ranked[:few]])]
            report = Guarded(
                guard="dominance",
                label=name,
                value=round(float(shares[few - 1]), 4),
                bound=round(float(bounds[few - 1]), 4),
                examples=len(left_out),
                devices=few,
            )
            guards.append(Guard(report, left_out))
    return guards


def flipped(table: Table, alive: Mask, past: Past, bound: float) -> list[Guard]:
    """Phrasings whose mix of labels lies farther than `bound` from the previous release's, in total variation.

    The new mix counts devices, before duplicates are taken out: one device that repeats itself is one voice. Left out
    are devices' examples of the labels that gained.
    """
    labels = sorted({*past.labels, *table.labels})
    place = {name: at for at, name in enumerate(labels)}
    new_label = np.array([place[name] for name in table.labels], dtype=np.int64)[table.label]
    old_label = np.array([place[name] for name in past.labels], dtype=np.int64)[past.label]
    rows = np.flatnonzero((table.device != 0) & np.isin(table.template, past.template))
    voices = np.unique(
        np.stack([table.template[rows], new_label[rows].astype(np.uint64), table.device[rows]], axis=1), axis=0
    )
    rows = rows[np.argsort(table.template[rows], kind="stable")]
    templates = table.template[rows]
    old = np.argsort(past.template, kind="stable")
    old_label, old_template = old_label[old], past.template[old]
    guards: list[Guard] = []
    for template, mine in _runs(voices):
        if len(mine) < MIN_FLIPPED or len(np.unique(mine[:, 2])) < MIN_FLIPPED:
            continue
        now = np.bincount(mine[:, 1].astype(np.int64), minlength=len(labels)) / len(mine)
        known = old_label[_equal(old_template, template)]
        gained = now - np.bincount(known, minlength=len(labels)) / len(known)
        distance = float(np.abs(gained).sum() / 2)
        same = rows[_equal(templates, template)]
        suspects = np.sort(same[(gained[new_label[same]] > 0) & alive[same]])
        if distance > bound and len(suspects):
            report = Guarded(
                guard="flip",
                label=labels[int(gained.argmax())],
                value=round(distance, 4),
                bound=bound,
                examples=len(suspects),
                devices=len(np.unique(table.device[suspects])),
            )
            guards.append(Guard(report, suspects))
    return guards


def _runs(voices: Any) -> Iterator[tuple[Any, Any]]:
    """Rows that share their first number, of a sorted table."""
    starts = np.flatnonzero(np.diff(voices[:, 0], prepend=~voices[:1, 0]))
    for start, end in pairwise([*starts.tolist(), len(voices)]):
        yield voices[start, 0], voices[start:end]


def _equal(ranked: Any, value: Any) -> slice:
    """Where `value` stands in a sorted array."""
    return slice(int(np.searchsorted(ranked, value, "left")), int(np.searchsorted(ranked, value, "right")))
