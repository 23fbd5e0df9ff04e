"""Where telemetry waits between its arrival and the Parquet files: nothing that was acknowledged is ever lost.

A report is first appended to a segment of the journal and flushed to disk; only then is it acknowledged. From time to
time the segment is closed, its reports are written as one Parquet file, and the segment is removed. A process killed at
any moment leaves segments behind, and the next one writes those first. A kill between the Parquet file and the removal
writes a segment twice, which readers do not notice: they count a report id once.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import canonical_json
from pocketloop.delivery.telemetry import write_reports

REPORTS = TypeAdapter(list[TelemetryReport])
_REMEMBERED = 200_000
"""Reports whose repetition is noticed on arrival; readers notice all others."""
_STAMP = "%Y%m%dT%H%M%S.%fZ"


class Inbox:
    """The journal and Parquet files in `folder`, which belong to one process at a time.

    Args:
        folder: where `write_reports` puts its files; `journal/` and `quarantine/` lie beside them.

    Raises:
        DataError: another process has the folder open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = folder / "journal"
        self._journal.mkdir(parents=True, exist_ok=True)
        self._owner = FileLock(self._journal / ".lock")
        try:
            self._owner.acquire(timeout=0)
        except Timeout:
            raise DataError(f"{folder}: another collector writes here; stop it, or give another folder") from None
        self._lock = Lock()
        self._flushing = Lock()
        self._segment: _Segment | None = None
        self._reports: list[TelemetryReport] = []
        self._unwritten: list[tuple[Path, datetime, list[TelemetryReport]]] = []
        self._seen: dict[tuple[str, str], None] = {}
        for path in sorted(self._journal.glob("*.jsonl")):
            reports = _replay(path)
            self._remember(reports)
            self._unwritten.append((path, datetime.strptime(path.stem, _STAMP).replace(tzinfo=UTC), reports))

    @property
    def waiting(self) -> int:
        """Reports in the journal that are in no Parquet file yet."""
        return len(self._reports) + sum(len(reports) for _, _, reports in self._unwritten)

    @property
    def opened(self) -> datetime | None:
        """When the oldest report came that is in no Parquet file yet."""
        if self._unwritten:
            return self._unwritten[0][1]
        return self._segment.opened if self._segment else None

    def add(self, posts: Sequence[list[TelemetryReport]], now: datetime) -> list[int]:
        """Keep the reports of several posts, with one flush to disk for all; how many of each post were new.

        Raises:
            OSError: the disk is full, or failing; none of these posts was kept.
        """
        with self._lock:
            taken: set[tuple[str, str]] = set()
            fresh: list[list[TelemetryReport]] = []
            for post in posts:
                new = [report for report in post if self._is_new(report, taken)]
                fresh.append(new)
            if taken:
                lines = b"".join(REPORTS.dump_json(new, by_alias=True) + b"\n" for new in fresh if new)
                if self._segment is None:
                    self._segment = _Segment(self._journal, now)
                try:
                    self._segment.append(lines)
                except OSError:
                    self._rotate()  # nothing is appended behind what may be half a line
                    raise
                kept = [report for new in fresh for report in new]
                self._reports += kept
                self._remember(kept)
            return [len(new) for new in fresh]

    def flush(self) -> int:
        """Write what waits as Parquet, one file for each segment; returns how many reports were written.

        Raises:
            OSError: the disk is full; the journal keeps the reports for the next time.
        """
        with self._flushing:
            with self._lock:
                self._rotate()
            written = 0
            while self._unwritten:
                path, received, reports = self._unwritten[0]
                if reports:
                    write_reports(self.folder, reports, received)
                path.unlink()
                written += len(reports)
                del self._unwritten[0]
            return written

    def quarantine(self, rows: list[dict[str, Any]], now: datetime) -> None:
        """Note what was refused and why, one line each, a file a day; what was refused itself is not kept."""
        path = self.folder / "quarantine" / f"{now:%Y-%m-%d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = "".join(canonical_json({"received": now.isoformat(), **row}) + "\n" for row in rows)
        with open(path, "a", encoding="utf-8") as out:
            out.write(lines)

    def close(self) -> None:
        """Write what waits, and let go of the folder."""
        try:
            self.flush()
        finally:
            self._owner.release()

    def _rotate(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._unwritten.append((self._segment.path, self._segment.opened, self._reports))
            self._segment, self._reports = None, []

    def _is_new(self, report: TelemetryReport, taken: set[tuple[str, str]]) -> bool:
        key = (report.device_id, report.report_id)
        if key in self._seen or key in taken:
            return False
        taken.add(key)
        return True

    def _remember(self, reports: list[TelemetryReport]) -> None:
        self._seen.update(((report.device_id, report.report_id), None) for report in reports)
        for key in list(islice(self._seen, max(0, len(self._seen) - _REMEMBERED))):
            del self._seen[key]


class _Segment:
    """A file of the journal: one array of reports a line, flushed to disk with each append."""

    def __init__(self, folder: Path, opened: datetime) -> None:
        self.opened = opened.astimezone(UTC)
        while (path := folder / f"{self.opened.strftime(_STAMP)}.jsonl").exists():
            self.opened += timedelta(microseconds=1)
        self.path = path
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._length = 0
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # the file's name is on disk too
        finally:
            os.close(handle)

    def append(self, data: bytes) -> None:
        """Append whole lines, or nothing."""
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) or 0 :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._length)
            raise
        self._length += len(data)

    def close(self) -> None:
        """No more is appended."""
        self._file.close()


def _replay(path: Path) -> list[TelemetryReport]:
    """The acknowledged reports of a segment that a killed process left; a torn last line was never acknowledged."""
    reports: list[TelemetryReport] = []
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                reports += REPORTS.validate_json(line)
            except ValidationError as error:
                raise DataError(
                    f"{path}:{number}: not a line of the journal ({error.error_count()} errors): move the file away"
                ) from None
    return reports
