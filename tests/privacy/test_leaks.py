import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.privacy.leaks import LeakSearch


def record(text: str, **more: Any) -> dict[str, Any]:
    return {"event_id": "e-1", "messages": [{"role": "user", "content": text, "tool_calls": []}], **more}


SURVIVED = [
    ("PERSON", "sandy wu", "is SANDY  Wu at home"),
    ("PERSON", "grzęda", "grzęda's phone"),
    ("PERSON", "großmuster", "call GROSSMUSTER"),
    ("PERSON", "王伟", "给王伟打电话"),
    ("PHONE_NUMBER", "415-555-0123", "dial 4155550123 now"),
    ("PHONE_NUMBER", "+1 415 555 0123", "dial (415) 555.0123"),
    ("CREDIT_CARD", "4111111111111111", "card 4111 1111-1111 1111"),
    ("ADDRESS", "12 main street", "at 12 main\tStreet, please"),
]


@pytest.mark.parametrize(("kind", "value", "text"), SURVIVED)
def test_a_value_is_recognised_in_any_case_spacing_and_width(kind: str, value: str, text: str) -> None:
    assert LeakSearch([(kind, value)]).count(record(text)) == 1


GONE = [
    ("PERSON", "sandy wu", "sandy's wurst"),
    ("PERSON", "anna", "call <PERSON_aaaaaa> about bananas"),
    ("PHONE_NUMBER", "415-555-0123", "order 415-555-0124"),
    ("PERSON", "user", "hello"),
    ("PERSON", "person", "call <PERSON_aaaaaa>"),
]


@pytest.mark.parametrize(("kind", "value", "text"), GONE)
def test_parts_of_words_placeholders_and_fixed_words_are_no_leak(kind: str, value: str, text: str) -> None:
    assert LeakSearch([(kind, value)]).count(record(text)) == 0


@pytest.mark.parametrize(
    "more",
    [
        {"event_id": "anna"},
        {"metrics": {"anna": 1.0}},
        {"adapter": {"skill": "s", "version": "anna"}},
        {"consent": {"policy": "Anna"}},
        {"feedback": {"correction": {"content": "no, Anna!", "tool_calls": []}}},
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "anna", "arguments": {}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "x", "arguments": {"skill": "anna"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "x", "arguments": {"anna": {"y": ["Anna"]}}}]}]},
    ],
)
def test_every_corner_of_a_record_is_searched(more: dict[str, Any]) -> None:
    assert LeakSearch([("PERSON", "anna")]).count(record("hello", **more)) == 1


def test_a_skill_and_a_role_come_from_fixed_lists_and_are_no_leak() -> None:
    adapter = {"skill": "assistant", "version": "1"}
    assert LeakSearch([("PERSON", "assistant"), ("PERSON", "user")]).count(record("hello", adapter=adapter)) == 0


WORDS = st.text("abcdeß ", min_size=3, max_size=8).map(str.strip).filter(lambda word: len(word) > 2)


@given(value=WORDS, before=st.text("abc .,", max_size=5), after=st.text("abc .,", max_size=5))
def test_it_agrees_with_a_plain_search_for_whole_words(value: str, before: str, after: str) -> None:
    text = f"{before}{value.upper()}{after}"
    plain = " ".join(text.casefold().split())
    form = " ".join(value.casefold().split())
    expected = bool(re.search(rf"(?<![\w]){re.escape(form)}(?![\w])", plain))
    assert LeakSearch([("PERSON", value)]).count(record(text)) == int(expected)
