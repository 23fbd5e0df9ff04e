"""What a program can verify of an answer in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Check, EndsWithNumber, InOrder, SaysNoneOf, SaysOneOf, make_example
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.tasks.verify import passes


@pytest.mark.parametrize(
    ("check", "answer", "right"),
    [
        (SaysOneOf(any=["Nova", "Mila"]), "Hey, MILA here!", True),
        (SaysOneOf(any=["9:00"]), "Slot: 19:00", False),
        (SaysNoneOf(any=["hey"]), "They went away.", True),
        (SaysNoneOf(any=["hey"]), "Hey, you.", False),
        (EndsWithNumber(value=61), "34 + 27 = 61", True),
        (EndsWithNumber(value=61), "61 is 34 + 27", False),
        (EndsWithNumber(value=-3), "4 - 7 = -3", True),
        (EndsWithNumber(value=2.5), "It is 2,5.", True),
        (EndsWithNumber(value=1), "I do not know.", False),
        (InOrder(lines=["bank", "dentist"]), "1. bank 8:15\n\n2. dentist 9:00\n", True),
        (InOrder(lines=["bank", "dentist"]), "1. dentist 9:00\n2. bank 8:15", False),
        (InOrder(lines=["bank"]), "1. bank 8:15\n2. dentist 9:00", False),
    ],
)
def test_a_check_says_whether_an_answer_passes(check: Check, answer: str, right: bool) -> None:
    assert passes(check, answer) is right


@given(st.text(), st.text(min_size=1), st.integers(-999, 999))
def test_checks_take_any_text(answer: str, wanted: str, number: int) -> None:
    assert passes(SaysOneOf(any=[wanted]), answer) is not passes(SaysNoneOf(any=[wanted]), answer)
    assert passes(EndsWithNumber(value=number), f"so it is {number}")
    passes(InOrder(lines=[wanted]), answer)


def test_a_chat_answer_is_right_when_its_calls_are_and_every_check_passes() -> None:
    chat = TaskSpec("chat", None)
    turns = [Message(role="user", content="Who are you?"), Message(role="assistant", content="I am Nova.")]
    example = make_example("chat", turns, source="s", checks=[SaysOneOf(any=["Nova"]), SaysNoneOf(any=["hey"])])
    assert chat.score("My name is Nova.", example)["chat_right"] == 1
    assert chat.score("Hey, Nova here.", example)["chat_right"] == 0
    assert chat.score('Nova\n{"function": "call", "arguments": {}}', example)["chat_right"] == 0
    assert chat.score("", make_example("chat", turns, source="s"))["chat_right"] == 0
