import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import Example, FunctionRow, IntentRow, SaysOneOf, example_from_row, make_example
from pocketloop.contracts.recipe import Catalogue
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import TaskSpec, token_f1

FUNCTIONS = Catalogue(
    functions=[{"name": name, "description": "", "parameters": {"type": "object"}} for name in ("timer", "decline")],
    refusal="decline",
)
INTENT = TaskSpec("intent", Catalogue(labels=["timer", "out_of_scope"], refusal="out_of_scope"))
CALLS = TaskSpec("function_call", FUNCTIONS, system="Call a function.", declare_tools=True)
CHAT = TaskSpec("chat", None)


def timer() -> Example:
    return example_from_row(FunctionRow(input="ten minutes", function="timer", arguments={"minutes": 10}), source="t")


def scores(text: str) -> tuple[float, float, float]:
    found = CALLS.score(text, timer())
    return found["function_exact"], found["function_name"], found["function_valid"]


def test_the_right_answer_scores_one_on_every_metric_of_its_task() -> None:
    intent = example_from_row(IntentRow(input="boil an egg", output="out_of_scope"), source="t")
    chat = make_example(
        "chat",
        [
            Message(role="user", content="Hi"),
            Message(role="assistant", content="On it.", tool_calls=[ToolCall(name="timer")]),
        ],
        source="t",
        checks=[SaysOneOf(any=["on it"])],
    )
    for task, example in [(INTENT, intent), (CALLS, timer()), (CHAT, chat)]:
        found = task.score(write_answer(example.answer), example)
        assert list(found) and set(found) == set(task.metrics)
        assert set(found.values()) == {1.0}


def test_a_call_is_scored_as_a_whole_by_its_name_and_by_whether_it_exists() -> None:
    assert scores('{"function": "timer", "arguments": {"minutes": 10}}') == (1, 1, 1)
    assert scores('{"function": "timer", "arguments": {"minutes": 20}}') == (0, 1, 1)
    assert scores('{"function": "decline", "arguments": {}}') == (0, 0, 1)
    assert scores('{"function": "boil", "arguments": {}}') == (0, 0, 0)
    assert scores('{"function": "timer", "arguments": {"minutes"') == (0, 0, 0)
    assert scores("Ten minutes it is.") == (0, 0, 0)


def test_out_of_scope_is_scored_where_the_request_is_and_nowhere_else() -> None:
    asked = [example_from_row(IntentRow(input="x", output=label), source="t") for label in ("timer", "out_of_scope")]
    assert INTENT.score("out_of_scope", asked[0]) == {"intent_accuracy": 0}
    assert INTENT.score("out_of_scope", asked[1]) == {"intent_accuracy": 1, "intent_out_of_scope": 1}
    assert INTENT.score("timer", asked[1])["intent_out_of_scope"] == 0


def test_a_second_call_makes_the_first_no_longer_right() -> None:
    right = '{"function": "timer", "arguments": {"minutes": 10}}'
    assert scores(f"{right}\n{right}") == (0, 0, 1)


def test_an_answers_class_is_a_known_label_a_functions_name_or_what_went_wrong() -> None:
    assert INTENT.label_of(" timer\n") == "timer"
    assert INTENT.label_of("my secret") == "(unknown label)"
    assert CALLS.label_of('{"function": "timer", "arguments": {}}') == "timer"
    assert CALLS.label_of("hello") == "(no call)"
    assert CALLS.label_of('{"function": ') == "(unreadable)"


def test_only_the_catalogues_refusal_declines() -> None:
    assert CALLS.declines('{"function": "decline", "arguments": {}}')
    assert not CALLS.declines('{"function": "timer", "arguments": {}}')
    assert INTENT.declines("out_of_scope")
    assert not CHAT.declines("out_of_scope")


def test_a_conversation_starts_with_the_recipes_system_text_and_writes_calls_as_text() -> None:
    conversation = CALLS.conversation(timer().messages)
    assert [turn["role"] for turn in conversation] == ["system", "user", "assistant"]
    assert conversation[0]["content"] == "Call a function."
    assert conversation[-1]["content"] == '{"function": "timer", "arguments": {"minutes": 10}}'
    assert CHAT.conversation(timer().messages)[0]["role"] == "user"


def test_tools_are_declared_only_where_the_recipe_says_so() -> None:
    assert CALLS.tools is not None
    assert [tool["function"]["name"] for tool in CALLS.tools] == ["timer", "decline"]
    assert TaskSpec("function_call", FUNCTIONS).tools is None


@given(st.text(), st.text())
def test_token_f1_is_symmetric_and_one_for_the_same_words(left: str, right: str) -> None:
    assert token_f1(left, right) == pytest.approx(token_f1(right, left))
    assert 0 <= token_f1(left, right) <= 1
    assert token_f1(left, left.upper().lower()) == pytest.approx(token_f1(left.upper().lower(), left))


def test_token_f1_counts_shared_words_as_squad_does() -> None:
    assert token_f1("the cat sat", "The cat") == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert token_f1("", "") == 1.0
    assert token_f1("", "word") == 0.0
