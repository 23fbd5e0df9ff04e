import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.delivery.telemetry import compact, fleet_size, report_files, schema, write_reports

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def report(number: int, device: str = "d1", end: datetime = NOW, **changes: Any) -> TelemetryReport:
    made: dict[str, Any] = {
        "report_id": f"r{number}",
        "device_id": device,
        "start": end - timedelta(hours=6),
        "end": end,
        "adapter": "functions",
        "base_digest": "b" * 64,
        "sessions": 5,
    }
    return TelemetryReport.model_validate(made | changes)


def rows(folder: Path) -> list[dict[str, Any]]:
    return ds.dataset(report_files(folder, NOW - timedelta(days=30)), format="parquet").to_table().to_pylist()


def test_a_report_comes_back_with_every_field_and_its_times_in_utc(tmp_path: Path) -> None:
    east = NOW.astimezone(datetime.strptime("+0200", "%z").tzinfo)
    sent = report(1, end=east, digest="a" * 64, crashes=2, locale="de-DE", latency=[1, 2, 3, 4, 5, 6, 7, 8, 9])
    path = write_reports(tmp_path, [sent], NOW)
    assert path.parent.name == "day=2026-11-20"
    [row] = pq.ParquetFile(path).read().to_pylist()
    assert set(row) == set(TelemetryReport.model_fields) - {"schema_"} | {"received"}
    assert row["end"] == NOW.replace(tzinfo=None)
    assert (row["digest"], row["crashes"], row["locale"], row["latency"][8]) == ("a" * 64, 2, "de-DE", 9)
    assert pq.ParquetFile(path).schema_arrow.names == schema().names


def test_writing_the_same_reports_again_makes_no_second_file(tmp_path: Path) -> None:
    reports = [report(number) for number in range(3)]
    assert write_reports(tmp_path, reports, NOW) == write_reports(tmp_path, reports, NOW)
    assert len(rows(tmp_path)) == 3


def test_the_largest_counts_that_the_contract_allows_are_stored(tmp_path: Path) -> None:
    most = 2**31 - 1
    write_reports(tmp_path, [report(1, crashes=most, latency=[most] * 9)], NOW)
    assert (rows(tmp_path)[0]["crashes"], rows(tmp_path)[0]["latency"]) == (most, [most] * 9)


def test_past_days_are_merged_without_losing_or_repeating_a_report(tmp_path: Path) -> None:
    draw = random.Random(0)
    for day in range(3):
        for _ in range(4):
            batch = [report(draw.randrange(40), end=NOW - timedelta(days=day)) for _ in range(10)]
            write_reports(tmp_path, batch, NOW - timedelta(days=day, seconds=draw.randrange(3600)))
    before = {(row["received"].date(), row["report_id"]) for row in rows(tmp_path)}
    leftover = tmp_path / "day=2026-11-19" / ".x.parquet.1.part"
    leftover.write_bytes(b"half")
    assert compact(tmp_path, NOW) == 2
    assert compact(tmp_path, NOW) == 0
    after = [(row["received"].date(), row["report_id"]) for row in rows(tmp_path)]
    assert set(after) == before
    past = [key for key in after if key[0] < NOW.date()]
    assert len(past) == len(set(past))
    assert len(list(tmp_path.glob("day=2026-11-20/*.parquet"))) == 4


def test_the_size_of_a_fleet_is_the_mean_of_its_active_devices_a_day(tmp_path: Path) -> None:
    assert fleet_size(tmp_path / "absent", NOW) == 0
    for day, devices in enumerate((10, 20)):
        end = NOW - timedelta(days=day)
        write_reports(tmp_path, [report(day * 100 + n, f"d{n}", end) for n in range(devices)] * 2, end)
    assert fleet_size(tmp_path, NOW) == 15
    assert fleet_size(tmp_path, NOW, "other") == 0
    assert fleet_size(tmp_path, NOW + timedelta(days=30)) == 0
