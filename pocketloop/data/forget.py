"""Forgetting a device: its tombstone, the traces by which its data is known, and the places where it lies raw.

The tombstone comes first, so that nothing more comes in; the log comes last, because its event ids lead to everything
else: a run that is killed half-way can simply be repeated. Dataset releases stay as they are: they hold scrubbed
records and are named by their content. They are listed, and are not trained on again.
"""

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.files import atomic_file, canonical_json
from pocketloop.contracts.home import Home
from pocketloop.data import quarantine
from pocketloop.data.event_log import open_log, transaction
from pocketloop.data.received import Received, device_digest
from pocketloop.data.retention import forget_pages
from pocketloop.privacy.pseudonyms import Pseudonymizer, load_key

_EVENT_IDS = re.compile(rb'"event_ids?":(\[(?:"(?:[^"\\]|\\.)*",?)*\]|"(?:[^"\\]|\\.)*")')


class Traces(NamedTuple):
    """What a device's data can be told by: its id in raw events, its pseudonym and its events' ids in all others."""

    device_id: str
    digest: str
    """sha256 of the id: what a tombstone says."""
    group: str
    event_ids: frozenset[str]

    def in_lines(self, lines: Iterable[bytes]) -> int:
        """How many of these lines (of JSON, or whatever a file is split into) show a trace."""
        return sum(self._in(line) for line in lines)

    def _in(self, line: bytes) -> bool:
        if self.group.encode() in line or canonical_json(self.device_id).encode("utf-8", "surrogatepass") in line:
            return True
        if not self.event_ids:
            return False
        named = (json.loads(found) for found in _EVENT_IDS.findall(line))
        return any(not self.event_ids.isdisjoint([ids] if isinstance(ids, str) else ids) for ids in named)


class TouchedRelease(BaseModel):
    """A dataset release with records of a device in it."""

    model_config = ConfigDict(extra="forbid")

    digest: str
    adapter: str
    records: int


class Erased(BaseModel):
    """How much was erased from each place that holds events or words about them, or in a dry run would be."""

    model_config = ConfigDict(extra="forbid")

    events: int
    quarantined: int
    received: int
    journal: int
    """Events that a stopped collector had not brought into the landing zone."""
    waiting: int
    """Events in the journal of a running collector: it drops them instead of bringing them into the landing zone."""
    demo: int
    verdicts: int
    """What people said of its answers, in files that were imported."""


def traces_of(home: Home, device_id: str) -> Traces:
    """A device's traces; its event ids are those that the log still holds."""
    ids: list[str] = []
    if (home.events / "log.sqlite").is_file():
        with open_log(home.events) as connection:
            rows = connection.execute("SELECT event_id FROM events WHERE device_id = ?", (device_id,))
            ids = [event_id for (event_id,) in rows]
    group = Pseudonymizer(load_key(home)).group(device_id)
    return Traces(device_id, device_digest(device_id), group, frozenset(ids))


def bury(home: Home, received: Received, traces: Traces, releases: list[TouchedRelease], now: datetime) -> None:
    """Write the tombstone into the log and the landing zone, and note that these releases are not to be trained on."""
    moment = now.astimezone(UTC).isoformat(timespec="seconds")
    with open_log(home.events) as connection, transaction(connection):
        connection.execute("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", (traces.digest, moment))
        rows = [(release.digest, moment) for release in releases]
        connection.executemany("INSERT OR IGNORE INTO withdrawn VALUES (?, ?)", rows)
    received.add_tombstone(traces.digest, now)


def withdrawn(home: Home, release: str) -> str | None:
    """When somebody whose records are in this release was forgotten (RFC 3339); `None` if nobody was."""
    if not (home.events / "log.sqlite").is_file():
        return None
    with open_log(home.events) as connection:
        row = connection.execute("SELECT forgotten FROM withdrawn WHERE release = ?", (release,)).fetchone()
    return str(row[0]) if row else None


def touched_releases(home: Home, traces: Traces) -> list[TouchedRelease]:
    """The dataset releases in whose splits the device has records, by adapter."""
    touched = []
    for record in sorted(home.releases.glob("*/release.json")):
        folder = record.parent
        count = 0
        for path in sorted((folder / "splits").rglob("*.jsonl")):
            with open(path, "rb") as lines:
                count += traces.in_lines(lines)
        if count:
            adapter = str(json.loads(record.read_bytes())["adapter"])
            touched.append(TouchedRelease(digest=folder.name, adapter=adapter, records=count))
    return sorted(touched, key=lambda release: (release.adapter, release.digest))


def erase_raw(home: Home, received: Received, traces: Traces, dry_run: bool = False) -> Erased:
    """Erase the device's raw events: landing zone, demo fleet, refused lines, and at last the log itself.

    Raises:
        DataError: the landing zone cannot be written, or another process holds old pages of the log: run it again.
    """
    arrived = received.remove_device(traces.device_id) if not dry_run else _count_received(received, traces)
    journal, waiting = _erase_journal(home.root / "collector" / "journal", traces, dry_run)
    demo = 0
    for path in sorted((home.root / "demo").glob("*.jsonl")):
        demo += _rewrite(path, lambda line: _is_of(line, traces.device_id), dry_run)
    verdicts = _rewrite(home.root / "labels" / "human.jsonl", lambda line: bool(traces.in_lines([line])), dry_run)
    events, refused = _erase_log(home.events, traces.device_id, dry_run)
    return Erased(
        events=events,
        quarantined=refused,
        received=arrived,
        journal=journal,
        waiting=waiting,
        demo=demo,
        verdicts=verdicts,
    )


def _erase_log(log: Path, device_id: str, dry_run: bool) -> tuple[int, int]:
    """Erase events and refused lines; how many of each."""
    if not (log / "log.sqlite").is_file():
        return 0, 0
    with open_log(log) as connection:
        refused = quarantine.remove_device(connection, log, device_id, dry_run)
        (events,) = connection.execute("SELECT count(*) FROM events WHERE device_id = ?", (device_id,)).fetchone()
        if not dry_run:
            with transaction(connection):
                connection.execute("DELETE FROM events WHERE device_id = ?", (device_id,))
            if events or refused:
                connection.execute("VACUUM")
            forget_pages(connection)
    return int(events), refused


def _erase_journal(folder: Path, traces: Traces, dry_run: bool) -> tuple[int, int]:
    """Erase what waits for the landing zone, unless a collector runs and will; how many lines in each case.

    A line of the journal begins with the digest of its device.
    """
    if not folder.is_dir():
        return 0, 0
    owner = FileLock(folder / ".lock")
    try:
        owner.acquire(timeout=0)
    except Timeout:
        dry_run = True
    segments = sorted(folder.glob("*.jsonl"))
    count = sum(_rewrite(path, lambda line: line.startswith(traces.digest.encode()), dry_run) for path in segments)
    if not owner.is_locked:
        return 0, count
    owner.release()
    return count, 0


def _count_received(received: Received, traces: Traces) -> int:
    return sum(_is_of(line, traces.device_id) for part in received.parts() for line in received.read(part))


def _rewrite(path: Path, unwanted: Callable[[bytes], bool], dry_run: bool) -> int:
    """Write a file anew without some of its lines; how many. A file that is not there has none."""
    if not path.is_file():
        return 0
    with open(path, "rb") as lines:
        count = sum(unwanted(line) for line in lines)
    if count and not dry_run:
        mode = path.stat().st_mode
        with atomic_file(path) as temporary, open(temporary, "wb") as out, open(path, "rb") as lines:
            out.writelines(line for line in lines if not unwanted(line))
        path.chmod(mode)
    return count


def _is_of(line: bytes, device_id: str) -> bool:
    # An id that is not written out in the line can only be there with escapes.
    if device_id.encode("utf-8", "surrogatepass") not in line and b"\\" not in line:
        return False
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("device_id") == device_id
