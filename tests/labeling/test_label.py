from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import DataError, LabelQualityError
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, FunctionRow, example_from_row
from pocketloop.contracts.files import Folder, read_jsonl, write_jsonl
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.labeling.label import label

Events = Callable[..., dict[str, Any]]


def recipe(task: str = "function_call", **config: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "adapter": "a",
            "task": task,
            "base": "tiny",
            "catalogue": "c.json",
            "data": {"sources": [{"kind": "events", "skill": "functions"}]},
            "label": config,
        }
    )


def timer(said: str, minutes: Any, text: str = "") -> list[dict[str, Any]]:
    calls = [{"name": "set_timer", "arguments": {"minutes": minutes}}]
    return [{"role": "user", "content": said}, {"role": "assistant", "content": text, "tool_calls": calls}]


def run(tmp_path: Path, events: list[dict[str, Any]], examples: list[Any], catalogue: Any, **config: Any) -> Any:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_jsonl(folder / "events-000000001-000000500.jsonl", events)
    write_jsonl(folder / "examples.jsonl", examples)
    write_jsonl(folder / "quarantine.jsonl", [{"stage": "scrub", "reason": "residue", "event_id": "e0"}])
    report = label(folder, recipe(**config), catalogue, out)
    kept = [Example.model_validate(row) for row in read_jsonl(out / "examples.jsonl")]
    noted = {row["event_id"]: row["reason"] for row in read_jsonl(out / "quarantine.jsonl")}
    assert noted.pop("e0") == "residue", "what was left out before is carried along"
    return report, kept, noted


def test_each_answer_is_kept_corrected_or_rejected_with_its_reason(
    tmp_path: Path, functions: Catalogue, make_event: Events
) -> None:
    five = {"tool_calls": [{"name": "set_timer", "arguments": {"minutes": 5}}]}
    events = [
        make_event(1, timer("5 minutes", 5, "Sure")),
        make_event(2, timer("6 minutes", 6), rating="down"),
        make_event(3, timer("five minutes", 50), rating="down", correction=five),
        make_event(4, timer("7 minutes", "7"), rating="up"),
        make_event(5, timer("8 minutes", 8), correction="you are silly"),
        make_event(6, timer("five", 50), correction='{"function": "set_timer", "arguments": {"minutes": 5}}'),
        make_event(7, [{"role": "user", "content": "hello"}]),
    ]
    report, kept, noted = run(tmp_path, events, [], functions)
    answers = {example.event_ids[0]: example.answer.tool_calls[0].arguments["minutes"] for example in kept}
    assert answers == {"e1": 5, "e3": 5, "e6": 5}
    assert all(example.answer.content == "" for example in kept)
    assert noted == {
        "e2": "thumbs down",
        "e4": "argument against its schema",
        "e5": "correction: no call",
        "e7": "no answer",
    }
    assert (report.examples, report.corrected, sum(report.rejected.values())) == (3, 2, 4)


def test_example_files_pass_when_they_fit_the_catalogue_even_if_not_verbatim(
    tmp_path: Path, functions: Catalogue
) -> None:
    rows = [
        FunctionRow(input="text my sister", function="send_message", arguments={"recipient": "Anna"}),
        FunctionRow(input="text my sister", function="send_mesage", arguments={"recipient": "Anna"}),
    ]
    report, kept, _ = run(tmp_path, [], [example_from_row(row, source="mine.jsonl") for row in rows], functions)
    assert len(kept) == 1
    assert report.rejected == {"function not in the catalogue": 1}
    assert report.kappa is None


def test_a_judge_that_disagrees_with_people_stops_the_run_and_says_what_to_do(
    tmp_path: Path, functions: Catalogue, make_event: Events
) -> None:
    wrong = [make_event(n, timer("a while", "long"), rating="up") for n in range(30)]
    right = [make_event(100 + n, timer(f"{n} minutes", n + 1), rating="down") for n in range(30)]
    with pytest.raises(LabelQualityError, match=r"kappa.*on \d+ rated answers.*min_kappa") as caught:
        run(tmp_path, wrong + right, [], functions, min_rated=20)
    assert caught.value.exit_code == 1
    with pytest.raises(DataError, match="no answer is right enough"):
        run(tmp_path, wrong + right, [], functions, min_rated=500)


def test_a_thumb_up_outweighs_a_doubt(tmp_path: Path, labels: Catalogue, make_event: Events) -> None:
    def event(n: int, said: str, answer: str, **feedback: Any) -> dict[str, Any]:
        said_turns = [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
        return make_event(n, said_turns, "intent", **feedback)

    events = [event(n, f"play song {n}", "music") for n in range(40)]
    events += [event(n, f"rain in town {n}", "weather") for n in range(40, 80)]
    events += [event(80, "play song 80", "weather", rating="up"), event(81, "play song 81", "weather")]
    _, kept, noted = run(tmp_path, events, [], labels, task="intent")
    assert noted == {"e81": "other data speaks against it"}
    assert any(example.event_ids == ["e80"] for example in kept)


def test_a_corrected_chat_turn_takes_the_persons_text(tmp_path: Path, make_event: Events) -> None:
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Go away."}]
    _, kept, _ = run(tmp_path, [make_event(1, said, correction="Hello there!")], [], None, task="chat")
    assert kept[0].answer == Message(role="assistant", content="Hello there!")


def test_labelling_the_same_folder_twice_gives_the_same_files(
    tmp_path: Path, functions: Catalogue, make_event: Events
) -> None:
    events = [make_event(n, timer(f"{n} minutes", n + 1)) for n in range(60)]
    run(tmp_path, events, [], functions)
    first = Folder.of(tmp_path / "out").digest
    run(tmp_path, events, [], functions)
    assert Folder.of(tmp_path / "out").digest == first
