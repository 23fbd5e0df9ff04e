"""What a phone counts: nothing lost and nothing counted twice, through crashes, cuts and other people's networks."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketloop.contracts.delivery import LATENCY_BOUNDS_MS, TelemetryReport
from pocketloop.device import telemetry
from pocketloop.device.errors import DeviceBusy
from pocketloop.device.telemetry import Recorder, Used
from pocketloop.services.collector import create_app
from pocketloop.services.running import running

BASE = "b" * 64
OLD = Used(adapter="functions", digest="1" * 64, base_digest=BASE, generation=1)
NEW = Used(adapter="functions", digest="2" * 64, base_digest=BASE, generation=2)
ROUTER = Used(adapter="intent", digest="3" * 64, base_digest=BASE, generation=5)


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    """A server that reads a post and then does as told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer(self, self.rfile.read(int(self.headers["content-length"])))

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/telemetry"
    finally:
        http.shutdown()
        http.server_close()


def sums(reports: list[TelemetryReport], name: str) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for report in reports:
        found[report.digest] = found.get(report.digest, 0) + getattr(report, name)
    return found


def test_counts_belong_to_the_file_that_ran(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "phone", app_version="1.4", locale="de-DE")
    with recorder:
        for used in (ROUTER, OLD, ROUTER, OLD):
            recorder.use(used)
            recorder.answered(used, 30)
        recorder.use(NEW)
        recorder.fell_back(NEW)
        recorder.rated(OLD, up=True)
        recorder.rated(NEW, up=False)
        recorder.reverted(NEW)
    reports = recorder.drain()
    assert [(report.adapter, report.digest, report.generation) for report in reports] == [
        ("intent", "3" * 64, 5),
        ("functions", "1" * 64, 1),
        ("functions", "2" * 64, 2),
    ]
    router, old, new = reports
    assert (router.sessions, old.sessions, new.sessions) == (1, 1, 1)
    assert (router.latency[0], old.latency[0], sum(new.latency)) == (2, 2, 0)
    assert (old.thumbs_up, old.thumbs_down, new.thumbs_up, new.thumbs_down) == (1, 0, 0, 1)
    assert (new.fallbacks, new.reverts, new.crashes) == (1, 1, 0)
    assert {(report.device_id, report.app_version, report.locale) for report in reports} == {("phone", "1.4", "de-DE")}


@pytest.mark.parametrize(("latency", "place"), [(0, 0), (50, 0), (50.1, 1), (100, 1), (6400, 7), (6400.5, 8), (1e9, 8)])
def test_latencies_fall_into_their_buckets(tmp_path: Path, latency: float, place: int) -> None:
    recorder = Recorder(tmp_path, "phone")
    recorder.answered(OLD, latency)
    (report,) = recorder.drain()
    assert report.latency == [int(i == place) for i in range(len(LATENCY_BOUNDS_MS) + 1)]


def test_a_run_that_never_ended_is_a_crash_of_what_it_used_last(tmp_path: Path) -> None:
    """The process is killed for real: nothing of it gets a chance to tidy up."""
    program = f"""
import os, signal, sys
from pathlib import Path
from pocketloop.device.telemetry import Recorder, Used
recorder = Recorder(Path(sys.argv[1]), "phone")
recorder.begin()
recorder.use(Used(**{ROUTER.model_dump()!r}))
recorder.use(Used(**{NEW.model_dump()!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    recorder = Recorder(tmp_path, "phone")
    assert recorder.begin()
    recorder.end()
    assert not recorder.begin()
    recorder.end()
    reports = recorder.drain()
    assert sums(reports, "crashes") == {ROUTER.digest: 0, NEW.digest: 2}
    assert sums(reports, "sessions") == {ROUTER.digest: 2, NEW.digest: 2}


def test_an_error_that_ends_the_app_is_a_crash_and_leaving_is_not(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "phone")
    for error in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(error), recorder:
            recorder.use(OLD)
            raise error
    with recorder:
        pass
    assert sums(recorder.drain(), "crashes") == {OLD.digest: 1}


def test_a_crash_before_any_adapter_ran_is_nobodys(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "phone")
    with pytest.raises(ValueError), recorder:
        raise ValueError
    assert not recorder.begin()
    recorder.end()
    assert recorder.drain() == []


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Recorder(tmp_path, "phone"):
        with pytest.raises(DeviceBusy, match="another process"):
            Recorder(tmp_path, "phone").begin()
        Recorder(tmp_path, "phone").rated(OLD, up=True)  # counting and posting need no run


def test_unconfirmed_reports_keep_their_ids_and_later_counts_wait_behind_them(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "phone")
    recorder.fell_back(OLD)
    first = recorder.drain()
    recorder.fell_back(OLD)
    assert recorder.drain() == first == Recorder(tmp_path, "phone").drain()
    recorder.confirm(first)
    (second,) = recorder.drain()
    assert second.fallbacks == 1 and second.report_id != first[0].report_id
    recorder.confirm([second])
    assert recorder.drain() == []


def test_a_clock_set_back_gives_no_span_that_ends_before_it_starts(tmp_path: Path) -> None:
    now = [datetime(2026, 11, 20, tzinfo=UTC)]
    recorder = Recorder(tmp_path, "phone", clock=lambda: now[0])
    recorder.fell_back(OLD)
    now[0] -= timedelta(days=400)
    (report,) = recorder.drain()
    assert report.start == report.end


def test_reports_reach_a_real_collector(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "phone", "phone")
    with running(create_app(tmp_path / "collected")) as address:
        url = f"{address}/telemetry"
        assert recorder.post(url).model_dump() == {"confirmed": 0, "waiting": 0, "problem": ""}
        recorder.use(OLD)
        recorder.use(NEW)
        assert recorder.post(url).confirmed == 2
        recorder.rated(NEW, up=True)
        assert recorder.post(url).confirmed == 1
    files = (tmp_path / "collected").glob("day=*/*.parquet")
    rows = [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    assert sorted((row["digest"], row["sessions"], row["thumbs_up"]) for row in rows) == [
        (OLD.digest, 1, 0),
        (NEW.digest, 0, 1),
        (NEW.digest, 1, 0),
    ]


def test_more_reports_than_fit_one_post_are_posted_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_AT_ONCE", 3)
    recorder = Recorder(tmp_path / "phone", "phone")
    for generation in range(7):
        recorder.use(OLD.model_copy(update={"generation": generation}))
    with running(create_app(tmp_path / "collected")) as address:
        assert recorder.post(f"{address}/telemetry").confirmed == 7


def portal(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    page = b"<html>log in</html>"
    handler.send_response(200)
    handler.send_header("content-length", str(len(page)))
    handler.end_headers()
    handler.wfile.write(page)


def accepting(status: int, answer: object) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def respond(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        data = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return respond


def redirecting(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(302)
    handler.send_header("location", "http://127.0.0.1:1/login")
    handler.end_headers()


def cutting(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(202)
    handler.send_header("content-length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"acc')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def silent(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    threading.Event().wait(0.5)


def endless(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(202)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 65536)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("respond", "problem"),
    [
        (portal, "answered 200"),
        (accepting(202, {"accepted": 5, "duplicates": 0}), "other than the collector"),
        (accepting(202, ["hello"]), "other than the collector"),
        (accepting(202, {"accepted": None, "duplicates": 0}), "other than the collector"),
        (accepting(500, {}), "answered 500"),
        (accepting(503, {}), "answered 503"),
        (accepting(404, {}), "answered 404"),
        (redirecting, "answered 302"),
        (cutting, "cannot be reached"),
        (silent, "cannot be reached"),
        (endless, "other than the collector"),
    ],
)
def test_what_the_collector_did_not_confirm_is_kept(
    tmp_path: Path,
    respond: Callable[[BaseHTTPRequestHandler, bytes], None],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder(tmp_path, "phone")
    recorder.fell_back(OLD)
    with server(respond) as url, monkeypatch.context() as hurried:
        hurried.setattr(telemetry, "_READ_S", 0.2 if respond is silent else 60)
        posted = recorder.post(url)
    assert (posted.confirmed, posted.waiting) == (0, 1) and problem in posted.problem
    recorder.fell_back(OLD)
    with server(accepting(202, {"accepted": 0, "duplicates": 1})) as url:
        assert recorder.post(url).confirmed == 2  # what waited, and then what was counted meanwhile


def test_reports_that_would_be_refused_again_are_over_with(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "phone", clock=lambda: datetime(2031, 1, 1, tzinfo=UTC))  # a clock set wrong
    recorder.fell_back(OLD)
    with running(create_app(tmp_path / "collected")) as address:
        assert recorder.post(f"{address}/telemetry").confirmed == 1
    assert recorder.drain() == [] and not list(tmp_path.glob("collected/day=*"))


def test_no_network_is_no_error(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "phone")
    recorder.fell_back(OLD)
    assert "cannot be reached" in recorder.post("http://127.0.0.1:1/telemetry").problem


def test_two_processes_do_not_post_the_same_at_once(tmp_path: Path) -> None:
    recorder, other = Recorder(tmp_path, "phone"), Recorder(tmp_path, "phone")
    recorder.fell_back(OLD)
    problems = []

    def respond(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        problems.append(other.post("http://127.0.0.1:1/telemetry").problem)
        accepting(202, {"accepted": 1, "duplicates": 0})(handler, body)

    with server(respond) as url:
        assert recorder.post(url).confirmed == 1
    assert problems == ["another process is posting"]


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"counting": [{}]}'])
def test_a_damaged_file_is_put_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "telemetry.json").write_bytes(content)
    recorder = Recorder(tmp_path, "phone")
    recorder.fell_back(OLD)
    assert len(recorder.drain()) == 1
    assert (tmp_path / "telemetry.damaged").read_bytes() == content


def test_a_full_disk_costs_counts_and_not_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    recorder = Recorder(tmp_path, "phone")
    with recorder:
        recorder.use(OLD)
        with monkeypatch.context() as broken:
            broken.setattr(telemetry, "write_json", full)
            recorder.answered(OLD, 100)
            assert "No space" in recorder.post("http://127.0.0.1:1/telemetry").problem
        recorder.answered(OLD, 100)
    (report,) = recorder.drain()
    assert (report.sessions, sum(report.latency)) == (1, 1)


steps = st.lists(st.sampled_from(["use", "fall", "crash", "restart", "post", "lose the answer", "no network"]))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_every_count_arrives_exactly_once(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Whatever happens in whatever order, the collector's deduplicated sums are what happened."""
    folder = tmp_path_factory.mktemp("phone")
    collected: dict[str, TelemetryReport] = {}
    lost = [False]

    def respond(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        reports = [TelemetryReport.model_validate(item) for item in json.loads(body)]
        for report in reports:
            assert collected.setdefault(report.report_id, report) == report
        if lost[0]:
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            accepting(202, {"accepted": len(reports), "duplicates": 0})(handler, body)

    happened = {"sessions": 0, "fallbacks": 0, "crashes": 0}
    recorder = Recorder(folder, "phone")
    recorder.begin()
    used = False
    with server(respond) as url:
        for step in [*steps, "post"]:
            if step == "use":
                recorder.use(OLD)
                happened["sessions"] += not used
                used = True
            elif step == "fall":
                recorder.fell_back(OLD)
                happened["fallbacks"] += 1
            elif step in ("crash", "restart"):
                if step == "crash":
                    recorder._run.release()  # as the system does for a dead process
                    happened["crashes"] += used
                else:
                    recorder.end()
                recorder = Recorder(folder, "phone")
                recorder.begin()
                used = False
            else:
                lost[0] = step == "lose the answer"
                recorder.post("http://127.0.0.1:1" if step == "no network" else url)
        lost[0] = False
        recorder.post(url)
        recorder.end()
    assert {name: sum(getattr(report, name) for report in collected.values()) for name in happened} == happened
