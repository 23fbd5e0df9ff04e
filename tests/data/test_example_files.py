import gzip
import json
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import EndsWithNumber, Example
from pocketloop.contracts.home import Home
from pocketloop.data.example_files import (
    MOST_REFUSED,
    import_examples,
    is_example_file,
    read_examples,
    stream_examples,
)

INTENT = {"input": "play some jazz", "output": "music"}
CALL = {"input": "timer for 5 minutes", "function": "set_timer", "arguments": {"minutes": "5"}}
DIALOGUE = {
    "messages": [
        {"role": "user", "content": "wake me"},
        {"role": "assistant", "content": "When?"},
        {"role": "user", "content": "at seven"},
        {"role": "assistant", "content": "Sure!", "tool_calls": [{"name": "set_alarm", "arguments": {"at": "seven"}}]},
        {"role": "assistant", "content": "Good night."},
    ]
}
EVENT = DIALOGUE | {
    "event_id": "e1",
    "device_id": "phone-1",
    "ts": "2026-11-01T10:00:00Z",
    "adapter": {"skill": "assistant"},
    "consent": {"training": True, "policy": "p"},
}


def write(path: Path, *rows: Any) -> str:
    content = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_each_format_becomes_examples_of_its_task(tmp_path: Path, name: str) -> None:
    (intent,), _ = read_examples(write(tmp_path / name, INTENT), "intent")
    (call,), _ = read_examples(write(tmp_path / name, CALL), "function_call")
    (chat,), _ = read_examples(write(tmp_path / name, DIALOGUE), "chat")
    assert (intent.answer.content, intent.source) == ("music", name)
    assert call.answer.tool_calls[0].arguments == {"minutes": "5"}
    assert chat.answer.content == "Sure!"


def test_a_dialogue_is_a_function_example_whose_answer_is_the_call_without_its_text(tmp_path: Path) -> None:
    (example,), _ = read_examples(write(tmp_path / "f.jsonl", DIALOGUE), "function_call")
    assert [m.content for m in example.prompt] == ["wake me", "When?", "at seven"]
    assert (example.answer.content, example.answer.tool_calls[0].name) == ("", "set_alarm")


def test_an_event_serves_as_a_chat_example_only_with_consent(tmp_path: Path) -> None:
    withheld = EVENT | {"event_id": "e2", "consent": {"training": False, "policy": "p"}}
    (example,), (refused,) = read_examples(write(tmp_path / "e.jsonl", EVENT, withheld), "chat")
    assert example.event_ids == ["e1"]
    assert "phone-1" not in example.model_dump_json()
    assert (refused.reason, refused.event_id) == ("no consent", "e2")


def test_lines_that_do_not_fit_are_refused_with_their_place_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = [INTENT, CALL, b"{oops", {"input": "", "output": "x"}, {"prompt": "a", "chosen": "b", "rejected": "c"}, b""]
    examples, refused = read_examples(write(tmp_path / "i.jsonl", *rows), "intent")
    assert len(examples) == 1
    assert [(row.where, row.reason) for row in refused] == [
        ("i.jsonl:2", "format"),
        ("i.jsonl:3", "malformed JSON"),
        ("i.jsonl:4", "schema"),
        ("i.jsonl:5", "format"),
    ]
    assert "function line, but the task is intent" in refused[0].detail


def test_a_file_of_another_task_is_an_error_that_says_which(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"i\.jsonl:1: format: an intent line, but the task is function_call"):
        read_examples(write(tmp_path / "i.jsonl", INTENT), "function_call")
    with pytest.raises(DataError, match="no such file"):
        read_examples(str(tmp_path / "none.jsonl"), "intent")
    with pytest.raises(DataError, match="empty"):
        read_examples(write(tmp_path / "empty.jsonl"), "intent")


def test_an_imported_example_file_lies_in_the_home_once_and_can_be_read_from_there(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "my.rows.jsonl.gz"
    write(path, CALL, CALL | {"input": "timer for 6 minutes"}, INTENT)
    first, second = import_examples(Home(), path), import_examples(Home(), path)
    assert (first.task, first.examples, first.refused) == ("function_call", 2, 1)
    assert first.uri == second.uri and first.uri.endswith(".rows.jsonl.gz")
    assert len(read_examples(first.uri, "function_call")[0]) == 2
    assert len(list((home / "examples").iterdir())) == 1


def test_events_and_examples_are_told_apart_by_their_first_line(tmp_path: Path) -> None:
    assert is_example_file(Path(write(tmp_path / "a.jsonl", INTENT)))
    assert is_example_file(Path(write(tmp_path / "b.jsonl", DIALOGUE)))
    assert not is_example_file(Path(write(tmp_path / "c.jsonl", EVENT)))
    assert not is_example_file(Path(write(tmp_path / "d.jsonl", b"{oops")))
    assert not is_example_file(tmp_path / "none.jsonl")


def test_a_large_file_is_read_line_by_line(tmp_path: Path) -> None:
    uri = write(tmp_path / "i.jsonl", INTENT, b"{oops", *({"input": f"say {n}", "output": "x"} for n in range(5000)))
    peaks = []
    for take in (100, 5002):
        tracemalloc.start()
        found = sum(1 for _ in islice(stream_examples(uri, "intent"), take))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found == take
    assert peaks[1] < peaks[0] + 200_000
    with pytest.raises(DataError, match="no intent example"):
        list(stream_examples(write(tmp_path / "f.jsonl", CALL), "intent"))


def test_only_the_first_refused_lines_of_an_import_are_listed_but_all_are_counted(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "i.jsonl"
    write(path, INTENT, *[b"{oops"] * (MOST_REFUSED + 5))
    taken = import_examples(Home(), path)
    assert (taken.examples, taken.refused, len(taken.quarantine)) == (1, MOST_REFUSED + 5, MOST_REFUSED)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("demo://functions?spilt=train", "unknown option 'spilt'; did you mean 'split'"),
        ("demo://functions?n=many", "whole numbers"),
        ("demo://functions?n=0", "at least 1"),
        ("demo://functions?split=test", "train or heldout"),
        ("demo://functoins", "did you mean 'functions'"),
        ("demo://intent", "holds intent examples, but the task is function_call"),
    ],
)
def test_a_wrong_address_of_a_generated_set_is_named(uri: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_examples(uri, "function_call")


def test_a_generated_set_is_the_same_for_the_same_seed() -> None:
    examples, refused = read_examples("demo://functions?split=heldout&n=60&seed=3", "function_call")
    assert (len(examples), refused) == (60, [])
    assert examples == read_examples("demo://functions?split=heldout&n=60&seed=3", "function_call")[0]
    assert len({example.group for example in examples}) == 60


@pytest.mark.parametrize(
    ("file", "task", "rows"),
    [("clinc150/val.jsonl", "intent", 3100), ("snips/val.jsonl", "function_call", 700)],
)
def test_the_public_files_are_read_whole(shared_data: Path, file: str, task: Any, rows: int) -> None:
    examples, refused = read_examples(str(shared_data / file), task)
    assert (len(examples), refused) == (rows, [])


def test_a_chat_line_may_carry_the_checks_that_its_answer_passes(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "1 + 1 = 2"}]
    line = {"messages": turns, "checks": [{"kind": "number", "value": 2}]}
    (example,) = stream_examples(write(tmp_path / "c.jsonl", line), "chat", role="math")
    assert isinstance(example, Example)
    assert example.role == "math" and example.checks == [EndsWithNumber(value=2)]
