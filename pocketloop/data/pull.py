"""Pull: what phones posted, from the landing zone into the event log.

Parts are never changed, so the log remembers their names. A part that was half taken in before a kill is read again,
and its events are found as duplicates; so are those of a part that was written anew because a device was taken out of
it. An event that arrives late gets a number like any other: whether it is young enough to learn from, `collect` says.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pocketloop.contracts.errors import DataError
from pocketloop.data.event_log import BATCH, forgotten_devices, open_log, store, transaction
from pocketloop.data.lines import RawLine
from pocketloop.data.received import Received, device_digest


class PullReport(BaseModel):
    """What became of the lines of the parts that are new: each is new, a duplicate, quarantined, or blank."""

    model_config = ConfigDict(extra="forbid")

    parts: int = 0
    lines: int = 0
    new: int = 0
    duplicates: int = 0
    blank: int = 0
    quarantined: dict[str, int] = Field(default_factory=dict)
    damaged: list[str] = Field(default_factory=list)
    """Parts that could not be read to their end, with the reason; they are tried again next time."""
    forgotten_elsewhere: list[str] = Field(default_factory=list)
    """Devices in this log for which somebody else put a tombstone into the landing zone: forget them here, too."""


def pull(received: Received, log: Path, now: datetime) -> PullReport:
    """Add the events of all new parts to the log in the folder `log`; `now` (aware) bounds their timestamps.

    Raises:
        DataError: the landing zone, or the log, cannot be read.
    """
    report = PullReport()
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    with open_log(log) as connection:
        elsewhere = received.tombstones()
        report.forgotten_elsewhere = _take_tombstones(connection, elsewhere, now)
        known = {part for (part,) in connection.execute("SELECT part FROM pulled")}
        parts = received.parts()
        for part in parts:
            if part in known:
                continue
            damaged = len(report.damaged)
            lines = _lines(received, part, report.damaged)
            while batch := list(islice(lines, BATCH)):
                with transaction(connection):
                    forgotten = forgotten_devices(connection) | elsewhere
                    store(connection, log, part, batch, now, forgotten, counts, refused)
            if len(report.damaged) == damaged:
                with transaction(connection):
                    connection.execute("INSERT OR IGNORE INTO pulled VALUES (?, ?)", (part, now.isoformat()))
                report.parts += 1
        with transaction(connection):
            gone = [(part,) for part in known.difference(parts)]
            connection.executemany("DELETE FROM pulled WHERE part = ?", gone)
    update = {key: counts[key] for key in ("lines", "new", "duplicates", "blank")}
    return report.model_copy(update={**update, "quarantined": dict(sorted(refused.items()))})


def _lines(received: Received, part: str, damaged: list[str]) -> Iterator[RawLine]:
    try:
        for number, data in enumerate(received.read(part), start=1):
            yield RawLine(number, data)
    except DataError as error:
        damaged.append(str(error))


def _take_tombstones(connection: sqlite3.Connection, elsewhere: set[str], now: datetime) -> list[str]:
    """Note tombstones of devices that this log knows nothing of; gives those devices that it does hold events of."""
    fresh = elsewhere - forgotten_devices(connection)
    if not fresh:
        return []
    devices = (device for (device,) in connection.execute("SELECT DISTINCT device_id FROM events"))
    held = {digest: device for device in devices if (digest := device_digest(device)) in fresh}
    with transaction(connection):
        rows = [(digest, now.isoformat()) for digest in sorted(fresh - held.keys())]
        connection.executemany("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", rows)
    return sorted(held.values())
