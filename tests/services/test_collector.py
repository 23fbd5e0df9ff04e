"""The collector over real sockets: every acknowledged report counts once, whatever happens to the process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests
from free_port import free_port
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from until import PATIENCE, ticking, until, until_served

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.contracts.errors import DataError
from pocketloop.services import inbox
from pocketloop.services.collector import create_app
from pocketloop.services.inbox import Inbox
from pocketloop.services.running import running
from pocketloop.services.telemetry_posts import MAX_BYTES, MAX_REPORTS

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def report(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A report as a phone posts it."""
    return {
        "schema": "telemetry/1",
        "report_id": f"r{number}",
        "device_id": f"d{number}",
        "start": "2026-11-20T10:00:00Z",
        "end": "2026-11-20T13:00:00+02:00",
        "app_version": "1.4",
        "locale": "de-DE",
        "adapter": "functions",
        "digest": "a" * 64,
        "base_digest": "b" * 64,
        "generation": 3,
        "sessions": 5,
        "crashes": 1,
        "latency": [1, 2, 0, 0, 0, 0, 0, 0, 4],
        **changes,
    }


@contextmanager
def collecting(folder: Path, **options: Any) -> Iterator[tuple[str, Starlette]]:
    """A collector whose clock stands at NOW; yields the address to post to, and the app."""
    app = create_app(folder, **({"clock": lambda: NOW} | options))
    with running(app) as address:
        yield f"{address}/telemetry", app


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of the Parquet files, as they lie there."""
    return [row for path in sorted(folder.glob("day=*/*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def post(url: str, body: Any) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = requests.post(url, data=data, timeout=60)
    return answer.status_code, answer.json()


def test_a_report_and_an_array_reach_the_parquet_files(tmp_path: Path) -> None:
    with collecting(tmp_path) as (url, app):
        assert post(url, report(1)) == (202, {"accepted": 1, "duplicates": 0})
        assert post(url, [report(2), report(3, digest=None)]) == (202, {"accepted": 2, "duplicates": 0})
        assert post(url, []) == (202, {"accepted": 0, "duplicates": 0})
        assert rows(tmp_path) == []  # in the journal, until a batch is worth a file
        assert app.state.inbox.flush() == 3
        found = rows(tmp_path)
        assert post(url, report(4))[0] == 202
    assert [row["report_id"] for row in found] == ["r1", "r2", "r3"]
    assert found[0] | {"received": None} == {
        **{name: value for name, value in report(1).items() if name != "schema"},
        "start": datetime(2026, 11, 20, 10),
        "end": datetime(2026, 11, 20, 11),
        "received": None,
        **dict.fromkeys(("fallbacks", "thumbs_up", "thumbs_down", "reverts"), 0),
    }
    assert found[0]["received"] == NOW.replace(tzinfo=None)
    assert found[2]["digest"] is None
    assert {row["report_id"] for row in rows(tmp_path)} == {"r1", "r2", "r3", "r4"}  # written as it stopped
    assert not list(tmp_path.glob("journal/*.jsonl"))


def test_the_same_report_twice_counts_once(tmp_path: Path) -> None:
    with collecting(tmp_path) as (url, app):
        assert post(url, [report(1), report(1)])[1] == {"accepted": 1, "duplicates": 1}
        assert post(url, report(1))[1] == {"accepted": 0, "duplicates": 1}
        app.state.inbox.flush()
        assert post(url, [report(1), report(2)])[1] == {"accepted": 1, "duplicates": 1}
        other_phone = report(1, device_id="d2")  # nobody can drown another phone's report by taking its id
        assert post(url, other_phone)[1] == {"accepted": 1, "duplicates": 0}
    assert len(rows(tmp_path)) == 3


def test_the_same_report_at_the_same_time_counts_once(tmp_path: Path) -> None:
    with collecting(tmp_path) as (url, _), ThreadPoolExecutor(8) as pool:
        answers = [answer for _, answer in pool.map(lambda i: post(url, [report(i % 10)]), range(80))]
    assert sum(answer["accepted"] for answer in answers) == 10
    assert sum(answer["duplicates"] for answer in answers) == 70
    assert sorted(row["report_id"] for row in rows(tmp_path)) == [f"r{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"sessions": -1}, "sessions", "greater than or equal to 0"),
        ({"crashes": 2**31}, "crashes", "less than or equal to"),
        ({"crashes": 10**40}, "crashes", "less than or equal to"),
        ({"sessions": float("inf")}, "sessions", ""),
        ({"sessions": "many"}, "sessions", "integer"),
        ({"latency": [1, 2]}, "", "latency has 9 counts"),
        ({"latency": [0, 0, 0, -4, 0, 0, 0, 0, 0]}, "latency.3", "greater than or equal to 0"),
        ({"digest": "../../etc/passwd"}, "digest", "pattern"),
        ({"adapter": "a/b"}, "adapter", "pattern"),
        ({"end": "2026-11-20T13:00:00"}, "end", "timezone"),
        ({"end": "2026-11-20T09:00:00Z"}, "", "end lies before start"),
        ({"end": "2026-11-21T12:00:01Z"}, "end", "more than a day in the future"),
        ({"end": "9999-12-31T23:59:59-14:00"}, "end", "more than a day in the future"),
        ({"start": "0001-01-01T00:00:00+14:00"}, "start", "more than 400 days in the past"),
        ({"report_id": ""}, "report_id", "at least 1 character"),
        ({"device_id": "x" * 129}, "device_id", "at most 128 characters"),
        ({"locale": "x" * 33}, "locale", "at most 32 characters"),
        ({"schema": "telemetry/2"}, "schema", "telemetry/1"),
        ({"my secret message": "my other secret"}, "", "unknown key"),
    ],
)
def test_what_is_refused_is_named_and_the_rest_is_kept(
    tmp_path: Path, changes: dict[str, Any], field: str, problem: str
) -> None:
    with collecting(tmp_path) as (url, _):
        status, answer = post(url, [report(1), report(2, **changes), report(3)])
    assert status == 422 and answer["accepted"] == 2
    (rejected,) = answer["rejected"]
    assert (rejected["index"], rejected["field"]) == (1, field) and problem in rejected["problem"]
    assert [row["report_id"] for row in rows(tmp_path)] == ["r1", "r3"]
    (quarantined,) = map(json.loads, (tmp_path / "quarantine" / "2026-11-20.jsonl").read_text().splitlines())
    assert quarantined["problem"] == rejected["problem"] and len(quarantined["sha256"]) == 64
    assert "secret" not in json.dumps([answer, quarantined])


@pytest.mark.parametrize("body", [3, "text", None, {}, [1, None, "text", [], {}]])
def test_what_is_no_report_is_refused_as_one(tmp_path: Path, body: Any) -> None:
    with collecting(tmp_path) as (url, _):
        status, answer = post(url, body)
    assert status == 422 and answer["accepted"] == 0
    assert len(answer["rejected"]) == (len(body) if isinstance(body, list) else 1)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"a": "\\ud800"}', b"[" * 10_000, b"[1,", b"<html>"])
def test_what_is_no_json_is_a_400(tmp_path: Path, body: bytes) -> None:
    with collecting(tmp_path) as (url, _):
        assert post(url, body)[0] == 400


def test_too_much_at_once_is_a_413_and_nothing_is_kept(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield b"["
        for _ in range(100):
            yield b" " * (MAX_BYTES // 50)

    with collecting(tmp_path) as (url, _):
        assert post(url, [report(i) for i in range(MAX_REPORTS + 1)])[0] == 413
        assert post(url, b"[" + b" " * MAX_BYTES + b"]")[0] == 413
        with suppress(requests.RequestException):  # the answer may come while the client is still sending
            assert requests.post(url, data=endless(), timeout=60).status_code == 413
        assert post(url, [report(1)])[0] == 202
    assert len(rows(tmp_path)) == 1


def test_only_posting_is_possible_and_health_is_told(tmp_path: Path) -> None:
    with collecting(tmp_path) as (url, _):
        assert requests.get(url, timeout=60).status_code == 405
        assert requests.get(url.replace("telemetry", "elsewhere"), timeout=60).status_code == 404
        post(url, [report(1)])
        health = requests.get(url.replace("telemetry", "healthz"), timeout=60)
    assert health.json() == {"status": "ok", "waiting": 1}


@pytest.mark.parametrize("options", [{"flush_reports": 3}, {"flush_seconds": 0.05, "clock": ticking(NOW)}])
def test_reports_reach_parquet_by_number_and_by_age(tmp_path: Path, options: dict[str, Any]) -> None:
    start = {"start": "2026-11-20T10:00:00Z", "end": "2026-11-20T10:00:00Z"}
    with collecting(tmp_path, **options) as (url, app):
        post(url, [report(i, **start) for i in range(4)])
        until(lambda: app.state.inbox.waiting == 0)
        assert len(rows(tmp_path)) == 4


def started(folder: Path, port: int, flush_seconds: float = 0.2) -> tuple[subprocess.Popen[bytes], str]:
    """The command in a process of its own, listening."""
    program = (
        "import typer; from pocketloop.cli import collector; app = typer.Typer(); collector.add_to(app); "
        "app.command('other')(print); app()"
    )
    options = ["--port", str(port), "--folder", str(folder), "--flush-seconds", str(flush_seconds)]
    command = [sys.executable, "-c", program, "collector", "serve", *options]
    environment = {**os.environ, "POCKETLOOP_HOME": str(folder / "home")}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    url = f"http://127.0.0.1:{port}"
    until_served(f"{url}/healthz", process)
    return process, url


def test_a_collector_that_is_told_to_stop_writes_what_waits(tmp_path: Path) -> None:
    process, url = started(tmp_path, free_port(), flush_seconds=1000)
    now = datetime.now(UTC).isoformat()
    assert post(f"{url}/telemetry", [report(i, start=now, end=now) for i in range(3)])[0] == 202
    assert rows(tmp_path) == []
    process.terminate()
    process.wait(PATIENCE)
    assert len(rows(tmp_path)) == 3 and not list(tmp_path.glob("journal/*.jsonl"))


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_a_kill(tmp_path: Path) -> None:
    """Killed while posts are under way; the next collector writes what the journal holds, and counts nothing twice."""
    acknowledged: list[int] = []
    number = 0
    for turn in range(3):
        process, url = started(tmp_path, free_port())
        kill_at = time.monotonic() + 0.3 + 0.2 * turn
        answered = True
        while answered:
            numbers = list(range(number, number + 7))
            now = datetime.now(UTC).isoformat()
            body = [report(i, start=now, end=now) for i in numbers]
            if acknowledged:  # phones that did not hear the answer post again
                body.append(report(acknowledged[-1], start=now, end=now))
            if time.monotonic() > kill_at and len(acknowledged) > 20 * (turn + 1):
                process.send_signal(signal.SIGKILL)
            try:
                status = requests.post(f"{url}/telemetry", json=body, timeout=60).status_code
            except requests.RequestException:
                answered = False
            else:
                assert status == 202
                acknowledged += numbers
            number += 7
        process.wait()
    assert len(acknowledged) > 50
    with running(create_app(tmp_path)):
        pass
    found = [(row["device_id"], row["report_id"]) for row in rows(tmp_path)]
    assert {f"r{i}" for i in acknowledged} <= {report_id for _, report_id in found}
    assert len(found) == len(set(found))


def test_a_torn_line_was_never_acknowledged(tmp_path: Path) -> None:
    whole, torn = (json.dumps([report(i)]) for i in (1, 2))
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "20261120T110000.000000Z.jsonl").write_text(f"{whole}\n{torn[:-9]}")
    box = Inbox(tmp_path)
    assert (box.waiting, box.flush()) == (1, 1)
    box.close()
    (row,) = rows(tmp_path)
    assert row["report_id"] == "r1" and row["received"] == datetime(2026, 11, 20, 11)


def test_a_kill_between_the_file_and_the_journal_writes_the_same_file_again(tmp_path: Path) -> None:
    box = Inbox(tmp_path)
    box.add([[TelemetryReport.model_validate(report(1))]], NOW)
    (segment,) = (tmp_path / "journal").glob("*.jsonl")
    kept = segment.read_bytes()
    box.close()
    segment.write_bytes(kept)
    again = Inbox(tmp_path)
    assert again.add([[TelemetryReport.model_validate(report(1))]], NOW) == [0]
    again.close()
    assert len(rows(tmp_path)) == 1


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "20261120T110000.000000Z.jsonl").write_text('[]\n["x"]\n')
    with pytest.raises(DataError, match=r"000000Z\.jsonl:2: not a line"):
        Inbox(tmp_path)


def test_two_collectors_do_not_share_a_folder(tmp_path: Path) -> None:
    box = Inbox(tmp_path)
    with pytest.raises(DataError, match="another collector"):
        Inbox(tmp_path)
    box.close()
    Inbox(tmp_path).close()


def test_a_full_disk_is_a_503_and_the_post_works_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with collecting(tmp_path) as (url, app):
        post(url, report(1))
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            answer = requests.post(url, json=[report(2)], timeout=60)
            assert answer.status_code == 503 and answer.headers["retry-after"]
            assert requests.post(url, json=[report(2)], timeout=60).status_code == 503
        assert post(url, [report(1), report(2)]) == (202, {"accepted": 1, "duplicates": 1})
        with monkeypatch.context() as broken:
            broken.setattr(inbox, "write_reports", lambda *_: full(0))
            with pytest.raises(OSError, match="No space"):
                app.state.inbox.flush()
            assert post(url, [report(3)])[0] == 202
    assert sorted(row["report_id"] for row in rows(tmp_path)) == ["r1", "r2", "r3"]


def test_old_repetitions_are_forgotten_and_left_to_the_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "_REMEMBERED", 2)
    box = Inbox(tmp_path)
    reports = [TelemetryReport.model_validate(report(i)) for i in range(3)]
    assert box.add([reports], NOW) == [3]
    assert box.add([reports], NOW) == [1]
    box.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
hostile = st.one_of(
    json_values,
    st.builds(
        lambda key, value, i: report(i, **{key: value}),
        st.sampled_from(sorted(report())),
        json_values,
        st.integers(0, 9),
    ),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Starlette]]:
    folder = tmp_path_factory.mktemp("hostile")
    with collecting(folder) as (url, app):
        yield url, folder, app


@settings(max_examples=60)
@given(items=st.lists(hostile, max_size=5))
def test_no_post_keeps_later_ones_from_the_files(shared: tuple[str, Path, Starlette], items: list[Any]) -> None:
    """Whatever comes, each item is kept, known, or refused, and all that was kept can be written."""
    url, _, app = shared
    status, answer = post(url, json.dumps(items).encode())
    assert status in (202, 422)
    assert answer["accepted"] + answer["duplicates"] + len(answer.get("rejected", [])) == len(items)
    app.state.inbox.flush()
    assert app.state.inbox.waiting == 0
