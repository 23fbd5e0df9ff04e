"""The event log: one SQLite file that holds every event once, with the order in which they came.

An import runs in transactions of a thousand lines. A process killed at any moment has stored some whole batches and
nothing else; the same import again finds those as duplicates and goes on. What is refused is kept beside the log
(`pocketloop.data.quarantine`), but for the events of a device that is forgotten: of those nothing is kept.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.data import quarantine
from pocketloop.data.lines import RawLine, open_raw, read_lines
from pocketloop.data.parsing import ParsedEvent, Refused, parse_event
from pocketloop.data.received import device_digest

BATCH = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    ts TEXT NOT NULL,
    device_id TEXT NOT NULL,
    skill TEXT NOT NULL,
    training INTEGER NOT NULL,
    policy TEXT NOT NULL,
    raw TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS imports (
    file_digest TEXT NOT NULL,
    name TEXT NOT NULL,
    finished TEXT NOT NULL,
    lines INTEGER NOT NULL,
    new INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    quarantined INTEGER NOT NULL,
    error TEXT
);
CREATE TABLE IF NOT EXISTS quarantine (
    digest TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    place TEXT NOT NULL,
    event_id TEXT,
    file TEXT NOT NULL,
    arrived TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (digest, reason)
);
CREATE TABLE IF NOT EXISTS pulled (
    part TEXT PRIMARY KEY,
    finished TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tombstones (
    device TEXT PRIMARY KEY,
    forgotten TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS withdrawn (
    release TEXT PRIMARY KEY,
    forgotten TEXT NOT NULL
);
"""


class ImportReport(BaseModel):
    """What became of the lines of one file: every one is new, a duplicate, quarantined, or blank."""

    model_config = ConfigDict(extra="forbid")

    name: str
    file_digest: str
    lines: int
    new: int
    duplicates: int
    blank: int
    quarantined: dict[str, int]
    error: str | None = None
    """Why reading stopped before the end of the file, if it did."""


class LogSummary(BaseModel):
    """What the log holds, for `pocketloop data inspect`: counts, and what was refused, where and why."""

    model_config = ConfigDict(extra="forbid")

    events: int
    devices: int
    watermark: int
    first_ts: str | None
    last_ts: str | None
    by_skill: dict[str, int]
    by_consent: dict[str, int]
    by_policy: dict[str, int]
    by_day: dict[str, int]
    imports: list[dict[str, str | int | None]]
    quarantined: dict[str, int]
    pulled: int
    """Parts of the landing zone that were taken in."""
    forgotten: int
    """Devices whose events are no longer taken in."""
    quarantine: list[Quarantined] = Field(default_factory=list)


def import_file(
    path: Path | str, log: Path, now: datetime, progress: Callable[[int], None] | None = None
) -> ImportReport:
    """Add the events of a `.jsonl` or `.jsonl.gz` file (`-`: standard input) to the log in the folder `log`.

    Args:
        now: aware; events more than a day ahead of it are refused.
        progress: called with the number of lines read so far, after each batch.

    Raises:
        DataError: there is no such file.
    """
    name = "stdin" if str(path) == "-" else Path(path).name
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    error: str | None = None
    with open_raw(path) as raw, open_log(log) as connection:
        lines = read_lines(raw, spill=quarantine.folder_of(log))
        while batch := list(islice(lines, BATCH)):
            error = next((f"{name}:{line.number}: {line.detail}" for line in batch if line.problem == "damaged"), error)
            # A file cut off exactly between two lines leaves an error, but no piece of a line to keep.
            kept = [line for line in batch if line.problem != "damaged" or line.data]
            with transaction(connection):
                store(connection, log, name, kept, now, forgotten_devices(connection), counts, refused)
            if progress is not None:
                progress(counts["lines"])
        digest = raw.hexdigest()
        report = ImportReport(
            name=name,
            file_digest=digest,
            lines=counts["lines"],
            new=counts["new"],
            duplicates=counts["duplicates"],
            blank=counts["blank"],
            quarantined=dict(sorted(refused.items())),
            error=error,
        )
        with transaction(connection):
            row = (digest, name, now.isoformat(), report.lines, report.new, report.duplicates, refused.total(), error)
            connection.execute("INSERT INTO imports VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    return report


def inspect_log(log: Path, limit: int = 50) -> LogSummary:
    """Summarize the log; lists at most `limit` quarantined lines for each reason.

    Raises:
        DataError: nothing was imported yet.
    """
    with open_log(log, must_exist=True) as connection:
        query = connection.execute
        events, devices, first, last = query(
            "SELECT count(*), count(DISTINCT device_id), min(ts), max(ts) FROM events"
        ).fetchone()
        reasons = _counts(connection, "SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 1")
        imports = query("SELECT * FROM imports ORDER BY rowid")
        columns = [column[0] for column in imports.description]
        return LogSummary(
            events=events,
            devices=devices,
            watermark=watermark(connection),
            first_ts=first,
            last_ts=last,
            by_skill=_counts(connection, "SELECT skill, count(*) FROM events GROUP BY 1 ORDER BY 1"),
            by_consent=_counts(
                connection, "SELECT iif(training, 'training', 'withheld'), count(*) FROM events GROUP BY 1 ORDER BY 1"
            ),
            by_policy=_counts(connection, "SELECT policy, count(*) FROM events GROUP BY 1 ORDER BY 1"),
            by_day=_counts(connection, "SELECT substr(ts, 1, 10), count(*) FROM events GROUP BY 1 ORDER BY 1"),
            imports=[dict(zip(columns, row, strict=True)) for row in imports],
            quarantined=reasons,
            pulled=query("SELECT count(*) FROM pulled").fetchone()[0],
            forgotten=len(forgotten_devices(connection)),
            quarantine=[
                Quarantined(stage="import", reason=reason, detail=detail, where=place, event_id=event_id)
                for wanted in reasons
                for reason, detail, place, event_id in query(
                    "SELECT reason, detail, place, event_id FROM quarantine WHERE reason = ? ORDER BY rowid LIMIT ?",
                    (wanted, limit),
                )
            ],
        )


@contextmanager
def open_log(log: Path, must_exist: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the log in the folder `log`, creating both where needed; the folder is the owner's alone.

    Raises:
        DataError: `must_exist`, and there is none; or the file is no event log.
    """
    path = log / "log.sqlite"
    if must_exist and not path.is_file():
        raise DataError(f"the event log is empty: import events with `pocketloop data import FILE` ({path})")
    log.mkdir(parents=True, exist_ok=True)
    log.chmod(0o700)
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
        connection.executescript(_SCHEMA)
        _upgrade(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DataError(f"{path}: not a readable event log ({error}); move it away to start a new one") from None
    try:
        yield connection
    finally:
        connection.close()


def count_events(log: Path, after: int = 0, skills: Collection[str] | None = None) -> int:
    """Events of the log that came after number `after` (a watermark), of these skills alone where they are named.

    Raises:
        DataError: the file is no event log. Without a file there are none.
    """
    if not (log / "log.sqlite").is_file():
        return 0
    with open_log(log) as connection:
        chosen = "" if skills is None else " AND skill IN (SELECT value FROM json_each(?))"
        named = () if skills is None else (json.dumps(sorted(skills)),)
        query = f"SELECT count(*) FROM events WHERE seq > ?{chosen}"  # noqa: S608 - constant
        return int(connection.execute(query, (after, *named)).fetchone()[0])


def watermark(connection: sqlite3.Connection) -> int:
    """Number of the newest event that the log ever held: it does not fall when that event is removed."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0


def forgotten_devices(connection: sqlite3.Connection) -> set[str]:
    """Digests of the devices whose events are no longer taken in."""
    return {device for (device,) in connection.execute("SELECT device FROM tombstones")}


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """What is done inside is stored as a whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def store(
    connection: sqlite3.Connection,
    log: Path,
    name: str,
    lines: list[RawLine],
    now: datetime,
    forgotten: Collection[str],
    counts: Counter[str],
    refused: Counter[str],
) -> None:
    """Insert one batch of the file `name` within a transaction, counting what becomes of each line.

    Lines of devices whose digest is in `forgotten` are refused, and nothing of them is kept.
    """
    bad: list[quarantine.Kept] = []
    for line in lines:
        counts["lines"] += 1
        if line.problem is None and not line.data.strip():
            counts["blank"] += 1
            continue
        try:
            if line.problem is not None:
                raise Refused(line.problem, line.detail)
            event = parse_event(line.data, now)
            if forgotten and device_digest(event.device_id) in forgotten:
                raise Refused("forgotten")
            counts[_insert(connection, event)] += 1
        except Refused as refusal:
            if refusal.reason == "forgotten" or (forgotten and _is_forgotten(line, forgotten)):
                refused["forgotten"] += 1
                if line.spilled is not None:
                    line.spilled.unlink()
                continue
            refused[refusal.reason] += 1
            bad.append(quarantine.Kept(line, refusal))
    quarantine.keep(connection, log, name, bad, now)


def _is_forgotten(line: RawLine, forgotten: Collection[str]) -> bool:
    device = quarantine.claimed_device(line)
    return device is not None and device_digest(device) in forgotten


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring a log of an earlier version up to date: its refused lines are as old as this moment, for all it knows."""
    if any(column[1] == "arrived" for column in connection.execute("PRAGMA table_info(quarantine)")):
        return
    connection.execute("ALTER TABLE quarantine ADD COLUMN arrived TEXT NOT NULL DEFAULT ''")
    connection.execute("UPDATE quarantine SET arrived = ?", (datetime.now(UTC).isoformat(timespec="seconds"),))


def _insert(connection: sqlite3.Connection, event: ParsedEvent) -> str:
    # Asked before inserting: an insert that a conflict turns into nothing would still use up a sequence number.
    known = connection.execute("SELECT digest FROM events WHERE event_id = ?", (event.event_id,)).fetchone()
    if known is not None and known[0] != event.digest:
        raise Refused("conflict", "the log holds other content under this event_id", event.event_id)
    if known is not None:
        return "duplicates"
    connection.execute(
        "INSERT INTO events (event_id, digest, ts, device_id, skill, training, policy, raw)"
        " VALUES (:event_id, :digest, :ts, :device_id, :skill, :training, :policy, :raw)",
        vars(event),
    )
    return "new"


def _counts(connection: sqlite3.Connection, statement: str) -> dict[str, int]:
    return dict(connection.execute(statement).fetchall())
