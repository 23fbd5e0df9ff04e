"""What is new for an adapter: counted from the log and the example files, and remembered after a run."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_recipe
from pocketloop.contracts.recipe import Recipe
from pocketloop.data.event_log import import_file
from pocketloop.data.news import Seen, example_files_now, look_for_news, read_seen, write_seen

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def event(name: str, **changed: Any) -> dict[str, Any]:
    call = {"role": "assistant", "tool_calls": [{"name": "play_music", "arguments": {}}]}
    return {
        "schema": "interaction/1",
        "event_id": f"event-{name}",
        "device_id": "phone",
        "ts": (NOW - timedelta(days=1)).isoformat(),
        "adapter": {"skill": "functions", "version": "1"},
        "consent": {"training": True, "policy": "2026-01"},
        "messages": [{"role": "user", "content": "play"}, call],
        **changed,
    }


def post(folder: Path, *events: dict[str, Any]) -> None:
    file = folder / "posted.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in events))
    import_file(file, folder / "events", NOW)


def recipe(*uris: Path | str) -> Recipe:
    examples = [f"{{kind: examples, uri: '{uri}'}}" for uri in uris]
    return load_recipe("functions", [f"data.sources=[{', '.join(['{kind: events, skill: functions}', *examples])}]"])


def test_only_events_that_the_recipe_may_learn_from_are_news(tmp_path: Path) -> None:
    post(
        tmp_path,
        event("1"),
        event("2", consent={"training": False, "policy": "2026-01"}),
        event("3", adapter={"skill": "intent", "version": "1"}),
        event("4", ts=(NOW - timedelta(days=91)).isoformat()),
        event("5", consent={"training": True, "policy": "2025-01"}),
    )
    events = tmp_path / "events"
    assert look_for_news(recipe(), events, Seen(), NOW).total == 2
    strict = recipe().model_copy(update={"data": recipe().data.model_copy(update={"consent_policies": ["2026-01"]})})
    assert look_for_news(strict, events, Seen(), NOW).total == 1
    assert look_for_news(recipe(), events, Seen(watermark=5), NOW).total == 0
    post(tmp_path, event("1"), event("6"))
    assert look_for_news(recipe(), events, Seen(watermark=5), NOW).events == 1


def test_a_log_that_was_started_anew_is_all_new(tmp_path: Path) -> None:
    post(tmp_path, event("1"))
    assert look_for_news(recipe(), tmp_path / "events", Seen(watermark=700), NOW).events == 1
    assert look_for_news(recipe(), tmp_path / "no such log", Seen(), NOW).events == 0


def line(number: int) -> str:
    return json.dumps({"input": f"play song {number}", "function": "play_music", "arguments": {}}) + "\n"


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz"])
def test_of_a_file_that_grew_the_added_lines_are_new_and_of_one_that_changed_all(tmp_path: Path, name: str) -> None:
    file = tmp_path / name

    def write(*lines: str) -> None:
        file.write_bytes(gzip.compress("".join(lines).encode()) if name.endswith("gz") else "".join(lines).encode())

    def new(seen: Seen) -> int:
        return look_for_news(recipe(file), tmp_path, seen, NOW).examples

    write(line(1), line(2))
    assert new(Seen()) == 2
    seen = Seen(examples=example_files_now(recipe(file)))
    assert new(seen) == 0
    write(line(1), "\n", line(2), line(3))
    assert new(seen) == 1
    write(line(0), line(2), line(3))
    assert new(seen) == 3
    write(line(1))
    assert new(seen) == 1
    file.unlink()
    with pytest.raises(DataError, match=name):
        new(seen)


def test_a_generated_set_is_new_when_its_address_is(tmp_path: Path) -> None:
    demo = recipe("demo://functions?n=20")
    assert look_for_news(demo, tmp_path, Seen(), NOW).examples == 20
    seen = Seen(examples=example_files_now(demo))
    assert look_for_news(demo, tmp_path, seen, NOW).examples == 0
    assert look_for_news(recipe("demo://functions?n=30"), tmp_path, seen, NOW).examples == 30


def test_what_a_run_was_given_is_remembered_by_adapter(tmp_path: Path) -> None:
    home, seen = Home(tmp_path), Seen(watermark=7, examples=example_files_now(recipe("demo://functions?n=20")))
    write_seen(home, "functions", seen)
    assert read_seen(home, "functions") == seen
    assert read_seen(home, "intent") == Seen()
    (tmp_path / "schedules" / "functions" / "seen.json").write_text("{")
    assert read_seen(home, "functions") == Seen()
