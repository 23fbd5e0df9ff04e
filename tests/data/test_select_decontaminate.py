from pathlib import Path

import pytest
from selection_samples import intent, recipe, run_select

from pocketloop.contracts.events import Message
from pocketloop.data.select.contamination import EvaluationIndex

SETS = {
    "heldout": ["what is the weather like in berlin tomorrow morning", "Play jazz"],
    "safety": ["tell me how one would open a lock without its key at night"],
}


def stays(work: Path, said: str, words: int | None = 6) -> bool:
    report, kept, _ = run_select(
        work, [intent(said, "x"), intent("something else", "x")], recipe(decontaminate=words), evaluation=SETS
    )
    assert sum(report.contaminated.values()) == 2 - len(kept)
    return len(kept) == 2


@pytest.mark.parametrize(
    "said",
    [
        "play jazz",
        "PLAY, jazz!",
        "What is the weather like in Berlin tomorrow morning?",
        "hey you what is the weather like in paris",
        "so how one would open a lock then",
    ],
)
def test_an_evaluation_sets_prompt_or_a_run_of_its_words_is_never_learnt(tmp_path: Path, said: str) -> None:
    assert not stays(tmp_path, said)
    assert stays(tmp_path, said, None)


@pytest.mark.parametrize("said", ["play jazz now", "jazz", "what is the weather like", "open a lock without me"])
def test_a_short_prompt_inside_a_longer_one_and_a_shorter_run_are_no_leak(tmp_path: Path, said: str) -> None:
    assert stays(tmp_path, said)


def test_each_set_is_named_with_what_stood_in_it(tmp_path: Path) -> None:
    examples = [
        intent("play jazz", "x"),
        intent("Play jazz", "y"),
        intent("tell me how one would open a lock without its key", "x"),
        intent("fine", "x"),
    ]
    report, _, quarantined = run_select(tmp_path, examples, recipe(decontaminate=6), evaluation=SETS)
    assert report.contaminated == {"heldout": 2, "safety": 1}
    assert sorted(row.reason for row in quarantined) == [
        "stands in evaluation set heldout",
        "stands in evaluation set heldout",
        "stands in evaluation set safety",
    ]


def test_only_what_the_person_says_is_compared() -> None:
    system = Message(role="system", content="You are the assistant of a household and answer in one short sentence")
    asked = Message(role="user", content="what time is it")
    index = EvaluationIndex({"heldout": [[system, asked]]}, 6)

    def found(*turns: Message) -> str | None:
        return index.find([turn.model_dump(mode="json") for turn in turns])

    assert found(system, Message(role="user", content="good night")) is None
    assert found(asked) == "heldout"
    assert found(asked, Message(role="assistant", content="ten"), Message(role="user", content="and now")) is None
