"""What a program can verify of an answer in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import (
    Check,
    EndsWithNumber,
    HasLength,
    InOrder,
    Mentions,
    SaysNoneOf,
    SaysOneOf,
    Surrounded,
    Written,
    make_example,
)
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.tasks.verify import passes, passes_loosely


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


LONG = "First things first. It costs 3.5 euros!\n\n- milk\n* eggs\n3. bread"


@pytest.mark.parametrize(
    ("check", "answer", "right"),
    [
        (HasLength(of="words", min=2, max=3), "one two three", True),
        (HasLength(of="words", max=2), "one two three", False),
        (HasLength(of="sentences", min=2, max=2), "It costs 3.5 euros. Fine", True),
        (HasLength(of="sentences", max=1), "No. No.", False),
        (HasLength(of="lines", min=5, max=5), LONG, False),
        (HasLength(of="lines", min=4, max=4), LONG, True),
        (HasLength(of="paragraphs", min=2, max=2), LONG, True),
        (HasLength(of="bullets", min=3, max=3), LONG, True),
        (HasLength(of="bullets", max=0), "3.5 euros\n-5 degrees", True),
        (HasLength(of="characters", max=4), " four ", True),
        (Mentions(text="tea", min=2), "Tea or tea?", True),
        (Mentions(text="tea", min=2), "Tea or team?", False),
        (Mentions(text="tea", min=0, max=1), "Tea or tea?", False),
        (Surrounded(kind="starts", text="Dear"), " dear Ana, hello", True),
        (Surrounded(kind="ends", text="Bye!"), "Hello. bye!\n", True),
        (Surrounded(kind="ends", text="Bye!"), "Bye! Ana", False),
        (Written(form="lowercase"), "äh, ok 1", True),
        (Written(form="lowercase"), "Ok", False),
        (Written(form="capitals"), "ÄH, OK 1", True),
        (Written(form="no commas"), "a, b", False),
        (Written(form="quoted"), '"all of it"', True),
        (Written(form="quoted"), '"this" and "that"', False),
        (Written(form="json"), '```json\n{"a": 1}\n```', True),
        (Written(form="json"), '{"a": 1', False),
        (Written.model_validate({"form": "json", "schema": {"required": ["a"]}}), '{"a": 1}', True),
        (Written.model_validate({"form": "json", "schema": {"required": ["b"]}}), '{"a": 1}', False),
    ],
)
def test_a_check_of_form_says_whether_an_answer_passes(check: Check, answer: str, right: bool) -> None:
    assert passes(check, answer) is right


@given(st.text())
def test_checks_of_form_take_any_text_and_the_loose_ones_forgive_more(answer: str) -> None:
    for check in (
        HasLength(of="sentences", max=1),
        HasLength(of="bullets", min=1),
        Mentions(text="a.b"),
        Written(form="json"),
        Written(form="quoted"),
    ):
        assert passes_loosely(check, answer) >= passes(check, answer)


def test_words_around_the_answer_are_forgiven_by_the_loose_score_alone() -> None:
    chat = TaskSpec("chat", None)
    turns = [Message(role="user", content="In capitals!"), Message(role="assistant", content="OK")]
    example = make_example("chat", turns, source="s", checks=[Written(form="capitals"), HasLength(of="words", max=3)])
    found = chat.score("Sure, here it is:\n**OK**", example)
    assert (found["chat_right"], found["chat_checks"], found["chat_checks_loose"]) == (0, 0, 1)
    assert "chat_checks" not in chat.score("OK", make_example("chat", turns, source="s"))


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "length", "of": "words"},
        {"kind": "length", "of": "words", "min": 3, "max": 2},
        {"kind": "written", "form": "lowercase", "schema": {}},
        {"kind": "rhymes"},
    ],
)
def test_a_check_that_means_nothing_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Check).validate_python(row)
