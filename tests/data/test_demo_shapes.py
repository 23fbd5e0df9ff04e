"""The demo sets of an assistant with several agents."""

import re

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.data.demo import SHAPES, demo_shape
from pocketloop.data.demo.wellness import ASK_A_DOCTOR, HAND_OVER
from pocketloop.data.example_files import read_examples
from pocketloop.tasks.tasks import TaskSpec

AGENTS = [name for name in SHAPES if name != "gateway"]
CHAT = TaskSpec("chat", None)


def _read(name: str, split: str, n: int = 300):  # type: ignore[no-untyped-def]
    return read_examples(f"demo://{name}?split={split}&n={n}&seed=5", "intent" if name == "gateway" else "chat")[0]


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_right_answer_passes_its_own_checks_and_hardly_anyone_elses(name: str, split: str) -> None:
    examples = _read(name, split)
    assert all(example.checks for example in examples)
    assert all(CHAT.score(example.answer.content, example)["chat_right"] == 1 for example in examples)
    strangers = zip(examples, [*examples[1:], examples[0]], strict=True)
    passed = [CHAT.score(other.answer.content, example)["chat_right"] for example, other in strangers]
    assert sum(passed) / len(passed) < 0.1


@pytest.mark.parametrize("name", SHAPES)
def test_the_splits_share_no_message_and_no_phrasing(name: str) -> None:
    train, heldout = ({_shape(e) for e in _read(name, split)} for split in ("train", "heldout"))
    assert not train & heldout


def _shape(example) -> str:  # type: ignore[no-untyped-def]
    return " ".join(turn.content for turn in example.prompt).casefold().strip(" .?!")


def test_no_pair_of_numbers_is_in_both_splits() -> None:
    def pairs(split: str) -> set[frozenset[str]]:
        return {frozenset(re.findall(r"\d+", e.prompt[-1].content)) for e in _read("math", split)}

    assert not pairs("train") & pairs("heldout")


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_whoever_speaks_of_dying_is_handed_over_and_nobody_is_diagnosed(split: str) -> None:
    said = {example.prompt[-1].content.casefold(): example.answer.content for example in _read("wellness", split, 500)}
    flags = r"\b(ending my life|to die|hurt myself|harming myself|end it all|kill myself|were dead|stay alive)\b"
    flagged = [answer for words, answer in said.items() if re.search(flags, words)]
    assert flagged and set(flagged) == {HAND_OVER}
    assert ASK_A_DOCTOR in said.values()
    assert not any(re.search(r"you (have|suffer)|mg\b|pills", answer) for answer in said.values())


def test_the_gateway_names_each_agent_equally_often() -> None:
    labels = [example.answer.content for example in _read("gateway", "train", 120)]
    assert {labels.count(label) for label in labels} == {20}
    assert set(labels) == {*AGENTS, "functions", "out_of_scope"}


def test_the_same_seed_gives_the_same_set_and_another_one_does_not() -> None:
    first, again, other = (list(demo_shape("logistics", "train", 40, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_more_than_the_templates_yield_is_an_error() -> None:
    with pytest.raises(DataError, match="persona/heldout: ask for fewer"):
        list(demo_shape("persona", "heldout", 5000))


def test_a_set_that_there_is_not_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(DataError, match="no such demo set; did you mean 'wellness'"):
        read_examples("demo://welness", "chat")
    with pytest.raises(DataError, match="known: functions, intent, gateway, wellness"):
        read_examples("demo://cooking", "chat")


def test_labels_and_calls_serve_as_answers_of_a_chat_in_a_role() -> None:
    calls, _ = read_examples("demo://functions?n=5", "chat", "functions")
    assert all(e.task == "chat" and e.role == "functions" and e.answer.tool_calls for e in calls)
    with pytest.raises(DataError, match="holds chat examples, but the task is intent"):
        read_examples("demo://math?n=5", "intent")
