"""Where telemetry waits between its arrival and the Parquet files: nothing that was acknowledged is ever lost.

A report is first appended to a segment of the journal and flushed to disk; only then is it acknowledged. From time to
time the segment is closed, its reports are written as one Parquet file, and the segment is removed. A process killed at
any moment leaves segments behind, and the next one writes those first. A kill between the Parquet file and the removal
writes a segment twice, which readers do not notice: they count a report id once.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import canonical_json
from pocketloop.delivery.telemetry import write_reports
from pocketloop.services.journal import Journal, Segment

REPORTS = TypeAdapter(list[TelemetryReport])
_REMEMBERED = 200_000
"""Reports whose repetition is noticed on arrival; readers notice all others."""


class Inbox:
    """The journal and Parquet files in `folder`, which belong to one process at a time.

    Args:
        folder: where `write_reports` puts its files; `journal/` and `quarantine/` lie beside them.

    Raises:
        DataError: another process has the folder open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = Journal(folder / "journal")
        self._lock = Lock()
        self._flushing = Lock()
        self._reports: list[TelemetryReport] = []
        self._unwritten: list[tuple[Segment, list[TelemetryReport]]] = []
        self._seen: dict[tuple[str, str], None] = {}
        for segment in self._journal.left:
            reports = _replay(segment)
            self._remember(reports)
            self._unwritten.append((segment, reports))

    @property
    def waiting(self) -> int:
        """Reports in the journal that are in no Parquet file yet."""
        return len(self._reports) + sum(len(reports) for _, reports in self._unwritten)

    @property
    def opened(self) -> datetime | None:
        """When the oldest report came that is in no Parquet file yet."""
        if self._unwritten:
            return self._unwritten[0][0].opened
        segment = self._journal.segment
        return segment.opened if segment else None

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
                try:
                    self._journal.append(lines, now)
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
                segment, reports = self._unwritten[0]
                if reports:
                    write_reports(self.folder, reports, segment.opened)
                segment.path.unlink()
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
            self._journal.release()

    def _rotate(self) -> None:
        segment = self._journal.close_segment()
        if segment is not None:
            self._unwritten.append((segment, self._reports))
            self._reports = []

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


def _replay(segment: Segment) -> list[TelemetryReport]:
    """The acknowledged reports of a segment that a killed process left."""
    reports: list[TelemetryReport] = []
    for number, line in enumerate(segment.lines(), 1):
        try:
            reports += REPORTS.validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{segment.path}:{number}: not a line of the journal ({error.error_count()} errors): move the file away"
            ) from None
    return reports
