"""Shards of the event log: 500 consecutive numbers each, listed in a manifest that holds no word of text.

What a person said stays in the log alone. A manifest says which events a recipe may use; `LogShards` reads just these.
A new event only ever touches the last shard, and an event that is removed only its own: a later stage that remembers
shards by digest works on what changed.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import atomic_file, canonical_json
from pocketloop.data.event_log import open_log

SHARD = 500
MANIFEST = "shards.jsonl"


class Row(NamedTuple):
    """An event that a shard holds: its number in the log, and the digest of its canonical JSON."""

    seq: int
    digest: str


def write_manifest(path: Path, rows: Iterable[Row]) -> int:
    """Write one line a shard for rows in the order of the log; returns the number of events.

    A line holds `name` (`events-000000001-000000500`), `digest` (over the numbers and digests of its events), `events`
    and `kept`, the numbers as [first, last] runs.
    """
    count = 0
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        for shard, members in groupby(rows, key=lambda row: (row.seq - 1) // SHARD):
            content, runs, events = hashlib.sha256(), list[list[int]](), 0
            for seq, digest in members:
                content.update(f"{seq} {digest}\n".encode())
                events += 1
                if runs and runs[-1][1] == seq - 1:
                    runs[-1][1] = seq
                else:
                    runs.append([seq, seq])
            name = f"events-{shard * SHARD + 1:09d}-{(shard + 1) * SHARD:09d}"
            line = {"name": name, "digest": content.hexdigest(), "events": events, "kept": runs}
            out.write(canonical_json(line) + "\n")
            count += events
    return count


class LogShards:
    """The events of a manifest, read from the log where they lie: a `ShardSource` that can be pickled."""

    def __init__(self, log: Path, manifest: Path) -> None:
        self.log = log
        self.manifest = manifest

    def __getstate__(self) -> dict[str, Path]:
        return {"log": self.log, "manifest": self.manifest}

    @cached_property
    def _lines(self) -> dict[str, str]:
        # Lines rather than objects: a million events with gaps are hundreds of thousands of runs.
        with open(self.manifest, encoding="utf-8") as file:
            return {json.loads(line)["name"]: line for line in file}

    def _shard(self, name: str) -> dict[str, Any]:
        shard: dict[str, Any] = json.loads(self._lines[name])
        return shard

    def names(self) -> list[str]:
        """Names of all shards, in the order of the log."""
        return list(self._lines)

    def digest(self, name: str) -> str:
        """Hex digest over the shard's events and their numbers."""
        return str(self._shard(name)["digest"])

    def events(self) -> int:
        """How many events all shards hold together."""
        return sum(self._shard(name)["events"] for name in self._lines)

    def read(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The shard's events with their numbers, as they were posted; holds one event at a time.

        Raises:
            DataError: the log no longer holds just these events: one was forgotten or expired since it was collected.
        """
        shard = self._shard(name)
        content, events = hashlib.sha256(), 0
        with open_log(self.log, must_exist=True) as connection:
            for first, last in shard["kept"]:
                rows = connection.execute(
                    "SELECT seq, digest, raw FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)
                )
                for seq, digest, raw in rows:
                    content.update(f"{seq} {digest}\n".encode())
                    events += 1
                    yield seq, json.loads(raw)
        if content.hexdigest() != shard["digest"]:
            raise DataError(
                f"{name}: {shard['events'] - events} of its {shard['events']} events left the log since they were "
                "collected (forgotten or expired); run the pipeline again"
            )
