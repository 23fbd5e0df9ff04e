import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.tasks.answers import read_calls, same_calls, write_answer, write_calls

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
calls = st.lists(
    st.builds(
        ToolCall, name=st.text(min_size=1, max_size=128), arguments=st.dictionaries(st.text(), values, max_size=4)
    ),
    max_size=4,
)
words = st.text().map(str.strip).filter(lambda text: not any(line.startswith("{") for line in text.split("\n")))


def call(name: str = "set_timer", **arguments: object) -> ToolCall:
    return ToolCall(name=name, arguments=arguments)


@given(calls)
def test_calls_come_back_as_they_were_written(written: list[ToolCall]) -> None:
    parsed = read_calls(write_calls(written))
    assert parsed is not None
    assert parsed[0] == ""
    # Compared as JSON: in Python, 1 and True and 1.0 are equal.
    assert [json.dumps(found.model_dump()) for found in parsed[1]] == [json.dumps(c.model_dump()) for c in written]


@given(words, calls)
def test_an_answers_words_and_calls_are_told_apart(text: str, written: list[ToolCall]) -> None:
    answer = write_answer(Message(role="assistant", content=text, tool_calls=written))
    assert read_calls(answer) == (text, written)


@given(st.text())
@example('{"function": "a", "arguments": {}}{"function": "b", "arguments": {}}')
def test_any_text_is_read_or_refused_and_never_an_error(text: str) -> None:
    parsed = read_calls(text)
    assert parsed is None or isinstance(parsed[0], str)


@pytest.mark.parametrize("depth", [100, 400, 900, 100_000])
def test_absurdly_nested_arguments_are_read_or_refused_and_never_an_error(depth: int) -> None:
    text = '{"function": "f", "arguments": {"a": ' + "[" * depth + "]" * depth + "}}"
    parsed = read_calls(text)
    assert parsed is None or same_calls(parsed[1], parsed[1])


@given(st.integers(0, 61))
def test_a_call_that_was_cut_short_is_unreadable(length: int) -> None:
    whole = '{"function": "set_timer", "arguments": {"label": "a", "n": 1}}'
    cut = whole[:length]
    assert read_calls(cut) is None or not read_calls(cut)[1]  # type: ignore[index]
    assert read_calls(whole) == ("", [call(label="a", n=1)])


@pytest.mark.parametrize(
    "text",
    [
        '{"function": "f"}',
        '{"function": "f", "arguments": []}',
        '{"function": 7, "arguments": {}}',
        '{"function": "", "arguments": {}}',
        '{"function": "f", "arguments": {}, "why": "no"}',
        '{"function": "f", "arguments": {}} and more',
        '{"function": "f", "arguments": {}',
        '{"function": "' + "f" * 129 + '", "arguments": {}}',
    ],
)
def test_what_begins_as_a_call_and_is_none_is_unreadable(text: str) -> None:
    assert read_calls(text) is None
    assert read_calls("Sure.\n" + text) is None


def test_words_before_between_and_after_calls_are_kept() -> None:
    one, two = write_calls([call(n=1)]), write_calls([call(n=2)])
    assert read_calls(f"First.\n{one}\nThen.\n  {two}\nDone.") == ("First.\nThen.\nDone.", [call(n=1), call(n=2)])
    assert read_calls("") == ("", [])


@given(calls, st.randoms())
def test_calls_are_the_same_in_any_order(written: list[ToolCall], random: object) -> None:
    shuffled = list(written)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert same_calls(written, shuffled)


@given(calls, calls)
def test_being_the_same_does_not_depend_on_the_side(left: list[ToolCall], right: list[ToolCall]) -> None:
    assert same_calls(left, right) == same_calls(right, left)
    assert not same_calls(left, [*left, call()])


def test_booleans_are_no_numbers_and_whole_floats_are_integers() -> None:
    assert not same_calls([call(on=True)], [call(on=1)])
    assert not same_calls([call(on=[{"x": False}])], [call(on=[{"x": 0}])])
    assert same_calls([call(n=1)], [call(n=1.0)])
    assert not same_calls([call(n="1")], [call(n=1)])
    assert same_calls([call(on=True), call(on=1)], [call(on=1), call(on=True)])


def test_space_around_a_string_does_not_count_and_space_inside_does() -> None:
    assert same_calls([call(a=" milk ")], [call(a="milk")])
    assert not same_calls([call(a="oat milk")], [call(a="oatmilk")])
    assert not same_calls([call(a="Milk")], [call(a="milk")])


def test_a_missing_or_an_extra_argument_is_another_call() -> None:
    assert not same_calls([call(a=1)], [call(a=1, b=None)])
    assert not same_calls([call("f", a=1)], [call("g", a=1)])
    assert not same_calls([call(), call()], [call()])
