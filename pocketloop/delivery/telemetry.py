"""What the fleet reported, as Parquet: one folder a day of arrival, small files that only ever appear whole.

The collector appends; the watcher reads with DuckDB and merges the files of past days. A report that was written twice
(a phone that posted again, a journal that was replayed, a merge that was cut) counts once: readers go by the device
and its `report_id`.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.contracts.files import atomic_file, sha256_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyarrow import Schema

_COUNTS = ("sessions", "crashes", "fallbacks", "thumbs_up", "thumbs_down", "reverts")
_TEXTS = ("report_id", "device_id", "app_version", "locale", "adapter", "digest", "base_digest")
_DAILY = """
SELECT avg(devices) FROM (
    SELECT count(DISTINCT device_id) AS devices FROM read_parquet($files)
    WHERE "end" BETWEEN $since AND $now AND ($adapter IS NULL OR adapter = $adapter)
    GROUP BY CAST("end" AS DATE)
)
"""
_DISTINCT = """
SELECT DISTINCT ON (device_id, report_id) * FROM read_parquet($files, hive_partitioning = false)
ORDER BY device_id, report_id, received
"""


def schema() -> "Schema":
    """Columns of the dataset: the fields of TelemetryReport and `received`. Times are UTC without a zone."""
    import pyarrow as pa

    moment = pa.timestamp("us")
    return pa.schema(
        [(name, pa.string()) for name in _TEXTS]
        + [("start", moment), ("end", moment), ("received", moment), ("generation", pa.int64())]
        + [(name, pa.int64()) for name in _COUNTS]
        + [("latency", pa.list_(pa.int32()))]
    )


def write_reports(folder: Path, reports: list[TelemetryReport], received: datetime) -> Path:
    """Write reports as one Parquet file `day=YYYY-MM-DD/TIME-HASH.parquet`; returns its path.

    The same reports with the same `received` give the same file, so that a journal may be replayed.

    Args:
        folder: the dataset (`Home.telemetry`); made where needed.
        received: aware; when the collector took them. Its UTC day names the folder.
    """
    if not reports:
        raise ValueError("no reports to write")
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = naive_utc(received)
    columns: dict[str, list[object]] = {name: [getattr(report, name) for report in reports] for name in _TEXTS}
    columns["start"] = [naive_utc(report.start) for report in reports]
    columns["end"] = [naive_utc(report.end) for report in reports]
    columns["received"] = [at] * len(reports)
    for name in ("generation", *_COUNTS):
        columns[name] = [getattr(report, name) for report in reports]
    columns["latency"] = [report.latency for report in reports]
    table = pa.table(columns, schema=schema())
    name = sha256_text("\n".join(f"{report.device_id} {report.report_id}" for report in reports))[:16]
    path = folder / f"day={at:%Y-%m-%d}" / f"{at:%H%M%S%f}-{name}.parquet"
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def naive_utc(moment: datetime) -> datetime:
    """An aware moment as UTC without a zone, as the dataset keeps it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def report_files(folder: Path, since: datetime) -> list[str]:
    """Paths of the files that arrived on the UTC day of `since` or later."""
    first = f"day={naive_utc(since):%Y-%m-%d}"
    days = [day for day in sorted(folder.glob("day=????-??-??")) if day.name >= first]
    return [str(path) for day in days for path in sorted(day.glob("[!.]*.parquet"))]


def database() -> "DuckDBPyConnection":
    """A DuckDB in memory that fetches nothing and keeps to the machine's cores."""
    import duckdb

    return duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})


def fleet_size(folder: Path, now: datetime | None = None, adapter: str | None = None) -> int:
    """Devices that reported on a day, as the mean over the days of the last week on which any did; 0 without one."""
    now = now or datetime.now(UTC)
    since = now - timedelta(days=7)
    files = report_files(folder, since - timedelta(days=1))
    if not files:
        return 0
    with database() as connection:
        found = connection.execute(
            _DAILY, {"files": files, "since": naive_utc(since), "now": naive_utc(now), "adapter": adapter}
        ).fetchone()
    return round(found[0]) if found and found[0] else 0


def compact(folder: Path, now: datetime) -> int:
    """Merge the files of each past day into one and drop repeated reports; returns the number of days merged.

    Killed between writing and deleting, it leaves reports twice, which readers bear and the next run mends.
    """
    today = f"day={naive_utc(now):%Y-%m-%d}"
    merged = 0
    for day in sorted(folder.glob("day=????-??-??")):
        files = sorted(day.glob("[!.]*.parquet"))
        if day.name >= today or len(files) < 2:
            continue
        name = sha256_text("\n".join(path.name for path in files))[:16]
        target = day / f"merged-{name}.parquet"
        with atomic_file(target) as temporary, database() as connection:
            connection.sql(_DISTINCT, params={"files": [str(path) for path in files]}).write_parquet(
                str(temporary), compression="zstd", overwrite=True
            )
        for path in files:
            path.unlink(missing_ok=True)
        merged += 1
    return merged
