from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import Example, make_example
from pocketloop.contracts.recipe import Catalogue
from pocketloop.tasks.answers import same_calls, write_answer, write_calls
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.rewards import is_verifiable, verifier

NAMES = ["set_timer", "add_item", "stop"]
FUNCTIONS = Catalogue(functions=[{"name": name, "parameters": {"type": "object"}} for name in NAMES])
CALLS = TaskSpec("function_call", FUNCTIONS)
CHAT = TaskSpec("chat", FUNCTIONS)
INTENT = TaskSpec("intent", Catalogue(labels=["timer", "music"]))

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
arguments = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)
calls = st.lists(st.builds(ToolCall, name=st.sampled_from([*NAMES, "rm"]), arguments=arguments), min_size=1, max_size=3)


def call(name: str, /, **given: Any) -> ToolCall:
    return ToolCall(name=name, arguments=given)


def example(task: TaskSpec, *right: ToolCall, said: str = "") -> Example:
    answer = Message(role="assistant", content=said, tool_calls=list(right))
    return make_example(task.name, [Message(role="user", content="please"), answer], source="test")  # type: ignore[arg-type]


def worth(text: str, *right: ToolCall) -> float:
    return verifier(CALLS)(text, example(CALLS, *right))


def write(*said: ToolCall) -> str:
    return write_calls(list(said))


@given(calls, calls)
def test_the_right_calls_earn_one_and_all_others_less(right: list[ToolCall], said: list[ToolCall]) -> None:
    for task in (CALLS, CHAT):
        asked = example(task, *right)
        reward = verifier(task)
        assert reward(write_answer(asked.answer), asked) == 1.0
        earned = reward(write(*said), asked)
        assert 0.0 <= earned <= 1.0
        assert (earned == 1.0) == same_calls(said, right) == (task.score(write(*said), asked)[_EXACT[task.name]] == 1)
        assert earned == reward(write(*said), asked)


_EXACT = {"function_call": "function_exact", "chat": "chat_call"}


@given(st.text(max_size=40), calls)
def test_no_text_earns_more_than_one_or_less_than_nothing(text: str, right: list[ToolCall]) -> None:
    for task in (CALLS, CHAT):
        assert 0.0 <= verifier(task)(text, example(task, *right)) <= 1.0


@given(calls, st.lists(st.sampled_from(range(6)), min_size=1, max_size=4))
def test_calls_beyond_the_right_ones_never_pay(right: list[ToolCall], extra: list[int]) -> None:
    asked = example(CALLS, *right)
    more = [right[at % len(right)] if at < 4 else call("stop", a=at) for at in extra]
    assert verifier(CALLS)(write(*right, *more), asked) < 1.0


def test_each_thing_that_is_right_earns_something() -> None:
    right = call("set_timer", minutes=5, name="eggs")
    steps = [
        "no call at all",
        write(call("stop")),
        write(call("set_timer")),
        write(call("set_timer", minutes=4)),
        write(call("set_timer", minutes=5)),
        write(right),
    ]
    earned = [worth(text, right) for text in steps]
    assert earned[0] == 0.0 and earned[-1] == 1.0
    assert earned[2] == earned[3] < earned[4]
    assert earned[1] < earned[2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        '{"function": "set_timer", "arguments": {"minutes": 5}',
        '{"function": "set_timer"}',
        'Sure!\n{"function": "set_timer", "arguments": {"minutes": 5}}',
        '{"function": "set_timer", "arguments": {"minutes": 5}}\nAnything else?',
        '{"function": "set_timer", "arguments": {"minutes": 5}}\n{"function": "set_timer", "arguments"',
        '[{"function": "set_timer", "arguments": {"minutes": 5}}]',
    ],
)
def test_what_an_app_could_not_run_earns_nothing(text: str) -> None:
    assert worth(text, call("set_timer", minutes=5)) == 0.0


def test_two_calls_of_which_one_is_right_earn_at_most_half() -> None:
    right = call("set_timer", minutes=5)
    for other in (right, call("set_timer", minutes=6), call("stop"), call("rm")):
        assert worth(write(right, other), right) <= 0.1 + 0.9 / 2
    assert worth(write(right, right, right), right) < worth(write(right, right), right)


def test_a_function_that_is_not_declared_costs_the_worth_of_sound_form() -> None:
    right = call("set_timer", minutes=5)
    assert worth(write(call("rm")), right) == 0.0
    assert worth(write(call("stop")), right) > 0.0
    assert worth(write(right, call("rm")), right) < worth(write(right, call("stop")), right)


def test_adding_arguments_pays_no_more_than_leaving_them_out() -> None:
    right = call("add_item", item="milk")
    stuffed = call("add_item", item="milk", **{f"x{n}": n for n in range(5)})
    assert worth(write(stuffed), right) < worth(write(call("add_item", item="milk", count=1)), right) < 1.0


def test_a_boolean_is_no_number_and_order_does_not_matter() -> None:
    assert worth(write(call("stop", all=1)), call("stop", all=True)) < 1.0
    first, second = call("set_timer", minutes=5), call("stop")
    assert worth(write(second, first), first, second) == 1.0


@given(st.text(max_size=12))
def test_a_label_earns_one_or_nothing(text: str) -> None:
    asked = example(INTENT, said="timer")
    reward = verifier(INTENT)
    assert reward(text, asked) == float(text.strip() == "timer")
    assert reward("timer", asked) == reward(" timer\n", asked) == 1.0
    assert reward("timer timer", asked) == reward("timer\nmusic", asked) == 0.0


def test_words_beside_a_chats_calls_earn_nothing_and_cost_nothing() -> None:
    right = call("set_timer", minutes=5)
    asked = example(CHAT, right, said="On it.")
    reward = verifier(CHAT)
    assert reward(write(right), asked) == reward("Here " * 50 + "\n" + write(right), asked) == 1.0
    assert reward("Here you are.", asked) == 0.0


def test_only_labels_and_calls_are_verifiable() -> None:
    assert is_verifiable(INTENT, example(INTENT, said="timer"))
    assert is_verifiable(CALLS, example(CALLS, call("stop")))
    assert is_verifiable(CHAT, example(CHAT, call("stop"), said="Done."))
    assert not is_verifiable(CHAT, example(CHAT, said="Hello!"))
