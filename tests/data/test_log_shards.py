import json
import pickle
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import read_jsonl
from pocketloop.data import shards as shards_module
from pocketloop.data.event_log import import_file, open_log
from pocketloop.data.shards import LogShards, Row, write_manifest

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "SHARD", 10)


def event(number: int) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "device_id": f"d{number % 3}",
        "ts": "2026-11-01T10:00:00Z",
        "adapter": {"skill": "assistant"},
        "consent": {"training": True, "policy": "2026-01"},
        "messages": [{"role": "user", "content": f"number {number}"}],
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(event(n)) + "\n" for n in range(1, 36)))
    import_file(path, tmp_path / "log", NOW)
    return tmp_path / "log"


def manifest(log: Path, numbers: list[int]) -> LogShards:
    with open_log(log) as connection:
        known = dict(connection.execute("SELECT seq, digest FROM events").fetchall())
    path = log.parent / "shards.jsonl"
    assert write_manifest(path, (Row(n, known[n]) for n in numbers)) == len(numbers)
    return LogShards(log, path)


def test_a_shard_gives_just_the_events_that_were_kept_with_their_numbers(log: Path) -> None:
    shards = manifest(log, [1, 2, 3, 7, 10, 11, 33])
    assert shards.names() == [f"events-{n:09d}-{n + 9:09d}" for n in (1, 11, 31)]
    read = [pair for name in shards.names() for pair in shards.read(name)]
    assert read == [(n, event(n)) for n in (1, 2, 3, 7, 10, 11, 33)]
    assert shards.events() == 7


def test_shards_can_be_sent_to_another_process(log: Path) -> None:
    shards = manifest(log, [1, 2, 15])
    shards.names()
    again = pickle.loads(pickle.dumps(shards))
    assert [list(again.read(name)) for name in again.names()] == [list(shards.read(name)) for name in shards.names()]


@given(kept=st.sets(st.integers(min_value=1, max_value=35)))
def test_runs_stand_for_the_same_numbers(tmp_path_factory: pytest.TempPathFactory, kept: set[int]) -> None:
    path = tmp_path_factory.mktemp("manifest") / "shards.jsonl"
    write_manifest(path, (Row(n, f"digest {n}") for n in sorted(kept)))
    runs = [run for row in read_jsonl(path) for run in row["kept"]]
    assert [n for first, last in runs for n in range(first, last + 1)] == sorted(kept)


def test_a_shard_keeps_its_digest_while_its_events_are_the_same(log: Path) -> None:
    whole = manifest(log, list(range(1, 36)))
    before = {name: whole.digest(name) for name in whole.names()}
    less = manifest(log, [n for n in range(1, 36) if n != 15])
    assert [name for name in less.names() if less.digest(name) != before[name]] == ["events-000000011-000000020"]


def test_a_shard_whose_event_left_the_log_is_refused(log: Path) -> None:
    shards = manifest(log, list(range(1, 21)))
    with sqlite3.connect(log / "log.sqlite") as connection:
        connection.execute("DELETE FROM events WHERE seq = 15")
    assert len(list(shards.read("events-000000001-000000010"))) == 10
    with pytest.raises(DataError, match=r"events-000000011-000000020: 1 of its 10 events left the log.*run the"):
        list(shards.read("events-000000011-000000020"))
