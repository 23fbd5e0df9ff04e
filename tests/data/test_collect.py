import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import Folder, read_jsonl
from pocketloop.contracts.recipe import Recipe
from pocketloop.data import shards as shards_module
from pocketloop.data.collect import collect
from pocketloop.data.event_log import import_file, open_log
from pocketloop.data.received import device_digest
from pocketloop.data.shards import LogShards

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "SHARD", 10)


def event(number: int, **changes: Any) -> dict[str, Any]:
    made = {
        "event_id": f"e{number}",
        "device_id": "d1",
        "ts": "2026-11-01T10:00:00Z",
        "adapter": {"skill": "assistant"},
        "consent": {"training": True, "policy": "2026-01"},
        "messages": [{"role": "user", "content": f"number {number}"}, {"role": "assistant", "content": "Done"}],
    }
    return made | changes


def recipe(**data: Any) -> Recipe:
    sources = data.pop("sources", [{"kind": "events", "skill": "assistant"}])
    return Recipe.model_validate({"adapter": "a", "task": "chat", "base": "tiny", "data": {"sources": sources, **data}})


def put(tmp_path: Path, *events: dict[str, Any]) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(e) + "\n" for e in events))
    import_file(path, tmp_path / "log", NOW)
    return tmp_path / "log"


def shards_of(tmp_path: Path, folder: str) -> LogShards:
    return LogShards(tmp_path / "log", tmp_path / folder / "shards.jsonl")


def digests(shards: LogShards) -> dict[str, str]:
    return {name: shards.digest(name) for name in shards.names()}


def test_new_events_leave_the_earlier_shards_as_they_were(tmp_path: Path) -> None:
    log = put(tmp_path, *(event(n) for n in range(25)))
    collect(recipe(), log, tmp_path / "first", NOW)
    put(tmp_path, *(event(n) for n in range(25, 33)))
    report = collect(recipe(), log, tmp_path / "second", NOW)
    first, second = digests(shards_of(tmp_path, "first")), digests(shards_of(tmp_path, "second"))
    assert list(first) == [f"events-{n:09d}-{n + 9:09d}" for n in (1, 11, 21)]
    assert [name for name in second if second[name] != first.get(name)] == list(second)[2:]
    assert (report.events, report.watermark) == (33, 33)


def test_the_same_log_on_the_same_day_gives_the_same_folder(tmp_path: Path) -> None:
    log = put(tmp_path, *(event(n, ts=(NOW - timedelta(days=n)).isoformat()) for n in range(25)))
    collect(recipe(max_age_days=10), log, tmp_path / "morning", NOW.replace(hour=0))
    collect(recipe(max_age_days=10), log, tmp_path / "night", NOW.replace(hour=23))
    assert Folder.of(tmp_path / "morning").digest == Folder.of(tmp_path / "night").digest


def test_what_may_not_be_used_is_counted_and_noted_with_its_reason(tmp_path: Path) -> None:
    log = put(
        tmp_path,
        event(1),
        event(2, consent={"training": False, "policy": "2026-01"}),
        event(3, consent={"training": True, "policy": "2019-01"}),
        event(4, ts="2026-01-01T00:00:00Z"),
        event(5, adapter={"skill": "functions"}),
    )
    report = collect(recipe(consent_policies=["2026-01"]), log, tmp_path / "out", NOW)
    assert report.events == 1
    assert report.count.left_out == {"no consent": 1, "other policy": 1, "other skill": 1, "too old": 1}
    assert (report.count.entered, report.count.kept) == (5, 1)
    assert report.policies == ["2026-01"]
    noted = {row["event_id"]: row["reason"] for row in read_jsonl(tmp_path / "out" / "quarantine.jsonl")}
    assert noted == {"e2": "no consent", "e3": "other policy", "e4": "too old"}


def test_unknown_keys_of_an_event_are_kept(tmp_path: Path) -> None:
    log = put(tmp_path, event(1, services=["Restaurants_2"]))
    collect(recipe(), log, tmp_path / "out", NOW)
    (kept,) = shards_of(tmp_path, "out").read("events-000000001-000000010")
    assert kept == (1, event(1, services=["Restaurants_2"]))


def test_example_files_join_the_events(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"input": "hello", "output": "Hello to you"}\n{"input": "half')
    log = put(tmp_path, event(1))
    sources = [{"kind": "events", "skill": "assistant"}, {"kind": "examples", "uri": str(file)}]
    report = collect(recipe(sources=sources), log, tmp_path / "out", NOW)
    assert (report.events, report.examples) == (1, 1)
    assert report.by_source == {"events:assistant": 1, str(file): 1}
    assert (report.count.entered, report.count.left_out) == (3, {"malformed JSON": 1})


def test_events_of_a_forgotten_device_are_no_examples_either(tmp_path: Path) -> None:
    file = tmp_path / "phone.jsonl"
    file.write_text("".join(json.dumps(event(n, device_id=f"d{n}")) + "\n" for n in (1, 2)))
    with open_log(tmp_path / "log") as connection:
        connection.execute("INSERT INTO tombstones VALUES (?, '2026-11-20')", (device_digest("d2"),))
    report = collect(recipe(sources=[{"kind": "examples", "uri": str(file)}]), tmp_path / "log", tmp_path / "out", NOW)
    assert (report.examples, report.count.left_out) == (1, {"forgotten": 1})
    assert "e2" not in (tmp_path / "out" / "quarantine.jsonl").read_text()


def test_nothing_left_is_an_error_that_says_why_with_counts(tmp_path: Path) -> None:
    log = put(tmp_path, event(1, consent={"training": False, "policy": "p"}), event(2, ts="2020-01-01T00:00:00Z"))
    with pytest.raises(DataError, match=r"1 no consent, 1 too old"):
        collect(recipe(), log, tmp_path / "out", NOW)
    with pytest.raises(DataError, match=r"no events of skill assistant.*pocketloop data import"):
        collect(recipe(), tmp_path / "nowhere", tmp_path / "out", NOW)
