from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import DataError, LabelQualityError
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, FunctionRow, PreferencePair, RatedAnswer, example_from_row
from pocketloop.contracts.files import Folder, read_jsonl, write_jsonl
from pocketloop.contracts.labels import HumanVerdict
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


def run(
    tmp_path: Path,
    events: list[dict[str, Any]],
    examples: list[Any],
    catalogue: Any,
    people: Sequence[HumanVerdict] = (),
    **config: Any,
) -> Any:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_jsonl(folder / "events-000000001-000000500.jsonl", events)
    write_jsonl(folder / "examples.jsonl", examples)
    write_jsonl(folder / "quarantine.jsonl", [{"stage": "scrub", "reason": "residue", "event_id": "e0"}])
    report = label(folder, recipe(**config), catalogue, out, people=people)
    kept = [Example.model_validate(row) for part in sorted((out / "examples").iterdir()) for row in read_jsonl(part)]
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
    assert (report.count.entered, report.count.kept, report.corrected) == (7, 3, 2)
    assert sum(report.count.left_out.values()) == 4


def test_example_files_pass_when_they_fit_the_catalogue_even_if_not_verbatim(
    tmp_path: Path, functions: Catalogue
) -> None:
    rows = [
        FunctionRow(input="text my sister", function="send_message", arguments={"recipient": "Anna"}),
        FunctionRow(input="text my sister", function="send_mesage", arguments={"recipient": "Anna"}),
    ]
    report, kept, _ = run(tmp_path, [], [example_from_row(row, source="mine.jsonl") for row in rows], functions)
    assert len(kept) == 1
    assert report.count.left_out == {"function not in the catalogue": 1}
    assert [(found.source, found.n, found.kappa) for found in report.agreement] == [("thumbs", 0, None)]


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


def test_a_correction_is_preferred_to_the_answer_and_thumbs_that_stand_alone_are_kept_as_ratings(
    tmp_path: Path, functions: Catalogue, make_event: Events
) -> None:
    five = {"tool_calls": [{"name": "set_timer", "arguments": {"minutes": 5}}]}
    events = [
        make_event(1, timer("five minutes", 50), correction=five),
        make_event(2, timer("6 minutes", 6), rating="down"),
        make_event(3, timer("7 minutes", 7), rating="up"),
        make_event(4, timer("8 minutes", "8"), rating="up"),  # liked, but no phone could run it
        make_event(5, timer("9 minutes", 9), correction={"tool_calls": timer("", 9)[1]["tool_calls"]}),
    ]
    report, _, _ = run(tmp_path, events, [], functions)
    (pair,) = [PreferencePair.model_validate(row) for row in read_jsonl(tmp_path / "out" / "pairs.jsonl")]
    assert (pair.reason, pair.group, pair.event_ids) == ("correction", "g-1", ["e1"])
    assert pair.chosen.tool_calls[0].arguments == {"minutes": 5}
    assert pair.rejected.tool_calls[0].arguments == {"minutes": 50}
    rated = [RatedAnswer.model_validate(row) for row in read_jsonl(tmp_path / "out" / "rated.jsonl")]
    assert {(one.event_ids[0], one.desirable) for one in rated} == {("e2", False), ("e3", True)}
    assert (report.pairs, report.rated) == ({"correction": 1}, {"down": 1, "up": 1})


def test_thumbs_of_two_people_on_answers_to_one_prompt_make_a_pair_of_the_one_who_liked_his(
    tmp_path: Path, labels: Catalogue, make_event: Events
) -> None:
    def event(n: int, answer: str, rating: str) -> dict[str, Any]:
        said = [{"role": "user", "content": "what a day"}, {"role": "assistant", "content": answer}]
        return make_event(n, said, "intent", rating=rating)

    events = [event(1, "weather", "up"), event(2, "music", "down"), event(3, "music", "down"), event(4, "music", "up")]
    events += [event(5, "timer", "up"), event(6, "timer", "down")]  # as many likes as dislikes say nothing
    run(tmp_path, events, [], labels, task="intent")
    (pair,) = [PreferencePair.model_validate(row) for row in read_jsonl(tmp_path / "out" / "pairs.jsonl")]
    assert (pair.chosen.content, pair.rejected.content) == ("weather", "music")
    assert (pair.group, pair.event_ids, pair.reason) == ("g-1", ["e1", "e2"], "thumbs")
    rated = [row["event_ids"][0] for row in read_jsonl(tmp_path / "out" / "rated.jsonl")]
    assert rated == ["e5", "e6"], "what stands in a pair is not repeated as a rating"
    unwanted, _, _ = run(tmp_path, events, [], labels, task="intent", pairs={"thumbs": False})
    assert unwanted.pairs == {} and sum(unwanted.rated.values()) == 6


def test_what_raters_say_counts_before_the_users_thumb(
    tmp_path: Path, functions: Catalogue, make_event: Events
) -> None:
    events = [make_event(n, timer(f"{n} minutes", n), rating="up" if n == 1 else "down") for n in (1, 2, 3)]
    example = example_from_row(FunctionRow(input="an egg", function="set_timer", arguments={"minutes": 9}), source="x")
    said = [HumanVerdict(event_id="e1", verdict="wrong", rater=name) for name in "ab"]
    said += [HumanVerdict(event_id="e1", verdict="right", rater="c"), HumanVerdict(event_id="e2", verdict="right")]
    said += [HumanVerdict(event_id="e3", verdict="right"), HumanVerdict(event_id="e3", verdict="wrong", rater="b")]
    said += [HumanVerdict(example_id=example.example_id, verdict="wrong")]
    _, kept, noted = run(tmp_path, events, [example], functions, people=said)
    assert [one.event_ids for one in kept] == [["e2"]]
    assert noted == {None: "people found it wrong", "e1": "people found it wrong", "e3": "thumbs down"}


def test_answers_shown_for_a_disagreement_do_not_count_towards_the_agreement(
    tmp_path: Path, functions: Catalogue, make_event: Events
) -> None:
    events = [make_event(n, timer(f"{n} minutes", "x")) for n in range(1, 41)] + [make_event(99, timer("9 minutes", 9))]
    said = [HumanVerdict(event_id=f"e{n}", verdict="wrong", source="mlflow") for n in range(1, 21)]
    contrary = {"verdict": "right", "source": "mlflow", "drawn": "disagreement"}
    said += [HumanVerdict.model_validate({"event_id": f"e{n}", **contrary}) for n in range(21, 41)]
    report, kept, _ = run(tmp_path, events, [], functions, people=said, min_rated=5)
    assert [(found.source, found.n) for found in report.agreement] == [("thumbs", 0), ("mlflow", 20)]
    assert report.disagreements == 20
    assert [one.event_ids for one in kept] == [["e99"]], "nobody's word makes a call that no phone can run"
