"""Dialogues: every turn is asked, and values have to be carried from one to the next."""

import gzip
import json
from pathlib import Path

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import make_example
from pocketloop.data.example_files import read_examples
from pocketloop.evaluation.measures import measures
from pocketloop.evaluation.suite import Outcome
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.tasks.turns import every_answer

FIND, BOOK = ToolCall(name="find", arguments={"place": "Sipan"}), ToolCall(name="book", arguments={"place": "Sipan"})
TURNS = [
    Message(role="assistant", content="Hello."),
    Message(role="user", content="A table at Sipan?"),
    Message(role="assistant", content="Let me see.", tool_calls=[FIND]),
    Message(role="tool", content='{"free": true}'),
    Message(role="assistant", content="It is free."),
    Message(role="user", content="Take it."),
    Message(role="assistant", tool_calls=[BOOK]),
]


def test_every_turn_after_a_users_is_an_answer_and_for_calls_those_that_call() -> None:
    assert [said[-1].tool_calls for said in every_answer("function_call", TURNS)] == [[FIND], [BOOK]]
    assert [len(said) for said in every_answer("chat", TURNS)] == [3, 5, 7]
    assert every_answer("function_call", TURNS)[0][-1].content == ""
    assert every_answer("chat", TURNS[:1]) == []


def test_a_file_of_dialogues_gives_an_example_for_each_turn_with_what_is_known_of_the_last(tmp_path: Path) -> None:
    row = {"messages": [turn.model_dump() for turn in TURNS], "slices": {"locale": "de-DE"}}
    row["accepts"] = [{"name": "book", "arguments": {"place": ["Sipan", "the Sipan"]}}]
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    found, refused = read_examples(str(tmp_path / "d.jsonl"), "function_call", turns="every")
    assert refused == [] and len(found) == 2
    assert len({example.dialogue for example in found}) == 1 and len({example.group for example in found}) == 1
    assert [len(example.accepts) for example in found] == [0, 1]
    assert all(example.slices == {"locale": "de-DE"} for example in found)
    (last,), _ = read_examples(str(tmp_path / "d.jsonl"), "function_call")
    assert (last.dialogue, last.example_id) == ("", found[1].example_id)


def test_a_call_that_forgets_what_was_said_before_is_counted_as_not_carried() -> None:
    task = TaskSpec("chat", None)
    said = every_answer("chat", TURNS)[-1]
    example = make_example("chat", said, source="t", dialogue="d")
    right, wrong = write_answer(TURNS[-1]), write_answer(TURNS[-1]).replace("Sipan", "Sino")
    for text, carried in ((right, 1.0), (wrong, 0.0)):
        scores, counts = task.measure(text, example)
        assert (counts["arguments_carried"], counts["arguments_carried_right"]) == (1.0, carried)
        assert scores["chat_right"] == carried


def test_real_dialogues_are_wholly_right_when_answered_from_the_record_and_not_when_turns_are_swapped(
    tmp_path: Path, shared_data: Path
) -> None:
    with gzip.open(shared_data / "sgd" / "events.jsonl.gz", "rt") as lines:
        kept = [line for line, _ in zip(lines, range(300), strict=False)]
    (tmp_path / "sgd.jsonl").write_text("".join(kept))
    examples, _ = read_examples(str(tmp_path / "sgd.jsonl"), "chat", turns="every")
    task = TaskSpec("chat", None)

    def outcomes(answers: list[str]) -> list[Outcome]:
        rows = []
        for text, example in zip(answers, examples, strict=True):
            scores, counts = task.measure(text, example)
            rows.append(
                Outcome(
                    example_id=example.example_id, scores=scores, counts=counts, answer="", reference="",
                    dialogue=example.dialogue,
                )
            )  # fmt: skip
        return rows

    recorded = [write_answer(example.answer) for example in examples]
    right = measures(outcomes(recorded), "chat")
    assert right["dialogue_right"].value == right["chat_call"].value == right["carried_recall"].value == 1
    assert right["dialogue_right"].n == len({example.dialogue for example in examples}) < len(examples)
    assert right["carried_recall"].n > 100  # values that stand in an earlier turn alone
    swapped = measures(outcomes(recorded[1:] + recorded[:1]), "chat")
    assert swapped["dialogue_right"].value < 0.2 and swapped["carried_recall"].value < 0.1
