"""Retention: what is older than `configs/collector.yaml` allows leaves the log, the quarantine and the landing zone.

An event's age counts from the moment it tells of; a quarantined line's, and a part's of the landing zone, from the day
on which it came in.
"""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.errors import DataError
from pocketloop.data import quarantine
from pocketloop.data.event_log import open_log, transaction
from pocketloop.data.received import Received

PATIENCE_MS = 15_000
"""How long readers of the log may hold up the removal of what stood in it."""


class ExpireReport(BaseModel):
    """What was removed, or in a dry run would be: everything of the days before `before`."""

    model_config = ConfigDict(extra="forbid")

    before: str
    events: int
    quarantined: int
    parts: int
    dry_run: bool


def expire(log: Path, received: Received, now: datetime, days: float, dry_run: bool = False) -> ExpireReport:
    """Remove what is more than `days` days old, counted in UTC days; no byte of it stays in the files.

    Raises:
        DataError: the landing zone or the log cannot be read or written.
    """
    try:
        oldest = (now.astimezone(UTC) - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
    except OverflowError:
        oldest = datetime.min.replace(tzinfo=UTC)
    day = oldest.date().isoformat()
    events = quarantined = 0
    if (log / "log.sqlite").is_file():
        with open_log(log) as connection:
            (events,) = connection.execute("SELECT count(*) FROM events WHERE ts < ?", (day,)).fetchone()
            if events and not dry_run:
                with transaction(connection):
                    connection.execute("DELETE FROM events WHERE ts < ?", (day,))
            quarantined = quarantine.drop_before(connection, log, oldest, dry_run)
            if not dry_run:
                forget_pages(connection)
    old = [part for part in received.parts() if part < f"day={day}"]
    if old and not dry_run:
        received.drop_before(oldest.date())
    return ExpireReport(before=day, events=events, quarantined=quarantined, parts=len(old), dry_run=dry_run)


def forget_pages(connection: sqlite3.Connection) -> None:
    """Bring what was deleted out of the write-ahead log, too: SQLite keeps the pages as they were until then.

    Raises:
        DataError: another process is reading the log and holds them.
    """
    connection.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise DataError(
            "what was removed still stands in the log's -wal file, because another process is reading the log: "
            "run this again when it has ended"
        )
