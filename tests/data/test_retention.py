import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from event_lines import NOW, event, holding, post, put

from pocketloop.contracts.errors import DataError
from pocketloop.data import retention
from pocketloop.data.event_log import inspect_log, open_log
from pocketloop.data.pull import pull
from pocketloop.data.received import Received
from pocketloop.data.retention import expire


@pytest.fixture
def received(tmp_path: Path) -> Received:
    return Received(str(tmp_path / "received"))


def test_events_leave_the_log_by_their_own_day_and_the_landing_zone_by_the_day_they_came(
    tmp_path: Path, received: Received
) -> None:
    log = tmp_path / "log"
    post(received, event(1, ts="2026-09-01T00:00:00Z"), day=datetime(2026, 9, 1, tzinfo=UTC))
    post(received, event(2, ts="2026-09-01T00:00:00Z"), event(3, ts="2026-10-21T00:00:00Z"))
    pull(received, log, NOW)
    report = expire(log, received, NOW, days=30)
    assert (report.before, report.events, report.parts) == ("2026-10-21", 2, 1)
    summary = inspect_log(log)
    assert (summary.events, summary.watermark) == (1, 3)
    assert pull(received, log, NOW).new == 0, "what was taken in once does not come back"


def test_a_dry_run_counts_the_same_and_removes_nothing(tmp_path: Path, received: Received) -> None:
    log = tmp_path / "log"
    put(log, event(1), b"{broken", now=NOW)
    post(received, event(1), day=NOW)
    later = NOW + timedelta(days=60)
    told = expire(log, received, later, days=30, dry_run=True)
    assert holding(tmp_path, "Kowalski")
    done = expire(log, received, later, days=30)
    assert told.model_copy(update={"dry_run": False}) == done
    assert (done.events, done.quarantined, done.parts) == (1, 1, 1)


def test_no_byte_of_what_expired_stays_in_any_file(tmp_path: Path, received: Received) -> None:
    """Rows of all sizes, put in and taken out in turns: pages split, overflow and are used again."""
    log, noise = tmp_path / "log", random.Random(7)
    for turn in range(6):
        rows = []
        for number in range(60):
            when = NOW - timedelta(days=turn * 10 + noise.randrange(9))
            text = f"expired-{turn} " * noise.choice([1, 5, 40, 400])
            rows.append(event(turn * 100 + number, ts=when.isoformat(), text=text, event_id=f"id-{turn}-{number}"))
        put(log, *rows, b'{"broken-%d": ' % turn, now=NOW - timedelta(days=turn * 10))
    for turn in range(5, 0, -1):
        gone = [f"{word}-{t}" for t in range(turn, 6) for word in ("expired", "id", "broken")]
        expire(log, received, NOW, days=turn * 10 - 1)
        assert not holding(log, *(f"{word} " if word.startswith("expired") else f"{word}" for word in gone))
    assert holding(log, "expired-0 ")
    assert inspect_log(log).events == 60


def test_files_that_no_row_knows_of_expire_by_their_own_age(tmp_path: Path, received: Received) -> None:
    log = tmp_path / "log"
    put(log, b"{broken")
    orphan = log / "quarantine" / "tmpabc.part"
    orphan.write_bytes(b"left by a killed import")
    os.utime(orphan, ((NOW - timedelta(days=99)).timestamp(),) * 2)
    expire(log, received, NOW, days=30)
    assert not orphan.exists()
    assert len(list((log / "quarantine").iterdir())) == 1


def test_an_age_beyond_all_time_removes_nothing(tmp_path: Path, received: Received) -> None:
    put(tmp_path / "log", event(1))
    assert expire(tmp_path / "log", received, NOW, days=10_000_000).events == 0
    assert expire(tmp_path / "none", received, NOW, days=1).events == 0
    assert not (tmp_path / "none").exists()


def test_a_reader_that_holds_the_old_pages_is_named(
    tmp_path: Path, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PATIENCE_MS", 100)
    log = tmp_path / "log"
    put(log, event(1), event(2))
    with open_log(log) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        with pytest.raises(DataError, match="another process is reading the log"):
            expire(log, received, NOW + timedelta(days=60), days=30)
    report = expire(log, received, NOW + timedelta(days=60), days=30)
    assert report.events == 0
    assert not holding(log, "Kowalski")


def test_a_log_of_an_earlier_version_counts_its_refused_lines_from_now_on(tmp_path: Path, received: Received) -> None:
    log = tmp_path / "log"
    put(log, event(1), b"{broken")
    with open_log(log) as connection:
        connection.execute("ALTER TABLE quarantine DROP COLUMN arrived")
    today = datetime.now(UTC)
    assert expire(log, received, today, days=1).quarantined == 0
    assert expire(log, received, today + timedelta(days=3), days=1).quarantined == 1
