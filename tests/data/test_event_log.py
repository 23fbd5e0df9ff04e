import gzip
import io
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.data.event_log import BATCH, import_file, inspect_log

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def event(number: int, **changes: Any) -> dict[str, Any]:
    made = {
        "schema": "interaction/1",
        "event_id": f"e{number}",
        "device_id": f"d{number % 3}",
        "ts": "2026-11-01T10:00:00Z",
        "adapter": {"skill": "functions"},
        "consent": {"training": True, "policy": "2026-01"},
        "messages": [{"role": "user", "content": f"call Anna {number}"}, {"role": "assistant", "content": "Done"}],
    }
    return made | changes


def lines(*records: Any) -> bytes:
    return b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events"


def do_import(tmp_path: Path, log: Path, content: bytes, name: str = "phone.jsonl") -> Any:
    path = tmp_path / name
    path.write_bytes(content)
    return import_file(path, log, NOW)


def test_importing_a_file_twice_adds_nothing_the_second_time(tmp_path: Path, log: Path) -> None:
    content = lines(*(event(n) for n in range(10)))
    first = do_import(tmp_path, log, content)
    second = do_import(tmp_path, log, gzip.compress(content), "again.jsonl.gz")
    assert (first.new, first.duplicates, first.lines) == (10, 0, 10)
    assert (second.new, second.duplicates, second.lines) == (0, 10, 10)
    assert inspect_log(log).watermark == 10


def test_key_order_and_spacing_do_not_make_a_conflict(tmp_path: Path, log: Path) -> None:
    reordered = json.dumps(dict(reversed(event(1).items())), indent=None, separators=(", ", " : ")).encode()
    report = do_import(tmp_path, log, lines(event(1), reordered))
    assert (report.new, report.duplicates, report.quarantined) == (1, 1, {})


def test_the_same_id_with_other_content_is_a_conflict_and_the_first_stays(tmp_path: Path, log: Path) -> None:
    report = do_import(tmp_path, log, lines(event(1), event(1, locale="de-DE")))
    assert (report.new, report.quarantined) == (1, {"conflict": 1})
    (entry,) = inspect_log(log).quarantine
    assert (entry.reason, entry.where, entry.event_id) == ("conflict", "phone.jsonl:2", "e1")


@pytest.mark.parametrize(
    ("bad", "reason", "says"),
    [
        (b'{"event_id": "e1", "messages": [', "malformed JSON", "Expecting value"),
        (b"[1, 2]", "not an object", "array"),
        (b"null", "not an object", "null"),
        (event(1, schema="interaction/9"), "schema", "schema"),
        ({k: v for k, v in event(1).items() if k != "consent"}, "consent", "consent: missing"),
        (event(1, consent={"policy": "2026-01"}), "consent", "consent.training: missing"),
        (event(1, consent={"training": "yes", "policy": "2026-01"}), "consent", "consent.training"),
        (event(1, ts="2026-11-22T00:00:00Z"), "future", "2026-11-22"),
        (event(1, ts="2026-11-01T10:00:00"), "schema", "ts"),
        (event(1, ts=1_790_000_000), "schema", "ts"),
        (event(1, messages=[]), "schema", "messages"),
        (event(1, messages=[{"role": "user", "secret Anna": 1}]), "schema", "unknown key"),
        (b'{"event_id": "e1", "messages": "caf\xe9"}', "encoding", "UTF-8"),
        ("{'event_id': 1}".encode("utf-16-le"), "encoding", "zero bytes"),
        (b'{"a": "\\ud800"}'[:-1] + b", " + json.dumps(event(1)).encode()[1:], "encoding", "surrogate"),
        (b'{"metrics": {"x": NaN}, ' + json.dumps(event(1)).encode()[1:], "malformed JSON", "NaN"),
        (b'{"x": ' + b"9" * 5000 + b"}", "malformed JSON", "too long"),
        (b"[" * 100_000, "malformed JSON", "nested"),
        (json.dumps(event(1) | {"text": "Anna " * 250_000}).encode(), "too long", "at most 1048576"),
    ],
)
def test_a_bad_line_is_quarantined_with_its_reason_and_the_rest_goes_on(
    tmp_path: Path, log: Path, bad: Any, reason: str, says: str
) -> None:
    content = lines(event(100), bad, event(101))
    report = do_import(tmp_path, log, content)
    assert (report.lines, report.new, report.quarantined, report.error) == (3, 2, {reason: 1}, None)
    summary = inspect_log(log)
    (entry,) = summary.quarantine
    assert (entry.reason, entry.where) == (reason, "phone.jsonl:2")
    assert says in entry.detail
    assert "Anna" not in summary.model_dump_json()
    assert content.splitlines(keepends=True)[1].rstrip(b"\n") in b"".join(
        path.read_bytes() for path in (log / "quarantine").iterdir()
    )


def test_what_is_refused_is_kept_once_and_for_the_owner_alone(tmp_path: Path, log: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        do_import(tmp_path, log, lines(b"{oops", b"x" * 2_000_000, event(1)), name)
    files = list((log / "quarantine").iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(log.stat().st_mode) == 0o700
    assert inspect_log(log).quarantined == {"malformed JSON": 1, "too long": 1}


def test_a_ten_megabyte_line_is_refused_in_bounded_memory(tmp_path: Path, log: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with open(path, "wb") as out:
        out.write(lines(event(1)))
        for _ in range(100):
            out.write(b"x" * (1 << 20))
        out.write(b"\n" + lines(event(2)))
    code = (
        "import resource, sys, pathlib, datetime\n"
        "from pocketloop.data.event_log import import_file\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "r = import_file(sys.argv[1], pathlib.Path(sys.argv[2]), datetime.datetime.now(datetime.UTC))\n"
        "print(r.new, r.quarantined, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path, log], capture_output=True, text=True, check=True)
    new, *quarantined, grown = done.stdout.split()
    assert (new, " ".join(quarantined)) == ("2", "{'too long': 1}")
    assert int(grown) < 64, "MiB"


def test_a_utf16_file_is_one_refusal_that_says_how_to_convert_it(tmp_path: Path, log: Path) -> None:
    content = lines(event(1), event(2)).decode().encode("utf-16")
    report = do_import(tmp_path, log, content)
    assert (report.new, report.quarantined) == (0, {"encoding": 1})
    (entry,) = inspect_log(log).quarantine
    assert "iconv" in entry.detail
    (kept,) = (log / "quarantine").iterdir()
    assert kept.read_bytes() == content


def test_a_utf8_mark_at_the_beginning_is_no_error(tmp_path: Path, log: Path) -> None:
    assert do_import(tmp_path, log, b"\xef\xbb\xbf" + lines(event(1))).new == 1


def test_a_truncated_gzip_counts_what_was_read_and_says_so(tmp_path: Path, log: Path) -> None:
    import random

    noise = random.Random(1)
    events = [event(n, metrics={"noise": noise.getrandbits(4000)}) for n in range(400)]
    whole = gzip.compress(lines(*events))
    report = do_import(tmp_path, log, whole[: len(whole) // 2], "cut.jsonl.gz")
    assert 150 < report.new < 250
    assert report.lines == report.new + sum(report.quarantined.values())
    assert report.error is not None
    assert report.error.startswith("cut.jsonl.gz:") and "ends early" in report.error
    assert inspect_log(log).imports[0]["error"] == report.error
    assert do_import(tmp_path, log, whole, "whole.jsonl.gz").new == 400 - report.new


def test_a_gzip_damaged_in_the_middle_counts_what_was_read(tmp_path: Path, log: Path) -> None:
    whole = bytearray(gzip.compress(lines(*(event(n) for n in range(2000)))))
    whole[len(whole) // 2] ^= 0xFF
    report = do_import(tmp_path, log, bytes(whole), "bad.jsonl.gz")
    assert report.error is not None and "damaged" in report.error


def test_events_come_in_through_standard_input(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(gzip.compress(lines(event(1), event(2))))

    monkeypatch.setattr(sys, "stdin", Stdin)
    report = import_file("-", log, NOW)
    assert (report.name, report.new) == ("stdin", 2)


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_an_import_killed_at_any_moment_continues_without_loss_or_double_counting(
    tmp_path: Path, log: Path, delay: float
) -> None:
    total, bad = 12 * BATCH, 40
    path = tmp_path / "big.jsonl"
    path.write_bytes(lines(*(event(n) for n in range(total)), *(b"{broken %d" % n for n in range(bad))))
    code = (
        "import sys, pathlib, datetime, time\n"
        "from pocketloop.data.event_log import import_file\n"
        "def tell(n): print(n, flush=True)\n"
        "import_file(sys.argv[1], pathlib.Path(sys.argv[2]), datetime.datetime.now(datetime.UTC), tell)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path, log], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        process.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with sqlite3.connect(log / "log.sqlite") as connection:
        (stored,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert stored % BATCH == 0 and stored > 0
    report = import_file(path, log, NOW)
    assert (report.lines, report.new, report.duplicates) == (total + bad, total - stored, stored)
    summary = inspect_log(log)
    assert (summary.events, summary.watermark, summary.quarantined) == (total, total, {"malformed JSON": bad})
    kept = b"".join(p.read_bytes() for p in (log / "quarantine").glob("*.lines")).splitlines()
    assert sorted(kept) == sorted(b"{broken %d" % n for n in range(bad))


def test_the_summary_counts_by_skill_consent_policy_and_day(tmp_path: Path, log: Path) -> None:
    do_import(
        tmp_path,
        log,
        lines(
            event(1),
            event(2, adapter={"skill": "intent"}, ts="2026-11-02T23:30:00-02:00"),
            event(3, consent={"training": False, "policy": "2025-06"}),
        ),
    )
    summary = inspect_log(log)
    assert summary.by_skill == {"functions": 2, "intent": 1}
    assert summary.by_consent == {"training": 2, "withheld": 1}
    assert summary.by_policy == {"2025-06": 1, "2026-01": 2}
    assert summary.by_day == {"2026-11-01": 2, "2026-11-03": 1}
    assert summary.devices == 3


def test_a_missing_file_and_an_empty_log_are_named(tmp_path: Path, log: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        import_file(tmp_path / "none.jsonl", log, NOW)
    with pytest.raises(DataError, match="pocketloop data import"):
        inspect_log(log)


def test_a_log_that_is_no_database_is_named(log: Path) -> None:
    log.mkdir()
    (log / "log.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="not a readable event log"):
        inspect_log(log)


def test_the_real_dialogues_come_in_whole(shared_data: Path, log: Path) -> None:
    report = import_file(shared_data / "sgd" / "events.jsonl.gz", log, NOW)
    assert (report.lines, report.new, report.quarantined) == (2000, 2000, {})
