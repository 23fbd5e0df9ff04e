import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.privacy.patterns import iban_valid, luhn
from pocketloop.privacy.placeholders import PLACEHOLDER, fill, made_up
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.spans import PII_TYPES


def talk(text: str, **arguments: object) -> list[Message]:
    call = ToolCall(name="make_call", arguments=arguments)
    return [Message(role="user", content=text), Message(role="assistant", tool_calls=[call])]


def test_a_placeholder_gets_one_value_in_the_whole_conversation() -> None:
    messages = talk("call <PERSON_aaaaaa> and <PERSON_bbbbbb>", who=["<PERSON_aaaaaa>"], note="for <PERSON_bbbbbb>!")
    filled = fill(messages, 3)
    arguments = filled[1].tool_calls[0].arguments
    first, second = arguments["who"][0], arguments["note"][4:-1]
    assert filled[0].content == f"call {first} and {second}"
    assert first != second
    assert not PLACEHOLDER.search(str(filled))


def test_the_same_seed_gives_the_same_values_and_another_seed_others() -> None:
    messages = talk("call <PERSON_aaaaaa> on <PHONE_NUMBER_bbbbbb>")
    assert fill(messages, "a") == fill(messages, "a")
    assert len({fill(messages, seed)[0].content for seed in range(50)}) > 45


def test_filling_leaves_the_given_messages_alone() -> None:
    messages = talk("call <PERSON_aaaaaa>")
    fill(messages, 1)
    assert messages == talk("call <PERSON_aaaaaa>")


@given(st.text())
def test_text_without_placeholders_stays_as_it_is(text: str) -> None:
    messages = talk(text, value=text, number=3)
    if not PLACEHOLDER.search(text):
        assert fill(messages, 1) == messages


def test_a_type_that_is_not_known_keeps_its_placeholder() -> None:
    assert fill(talk("see <MEDICAL_RECORD_aaaaaa>"), 1)[0].content == "see <MEDICAL_RECORD_aaaaaa>"


@pytest.mark.parametrize("kind", PII_TYPES)
def test_every_type_of_the_scrubber_has_many_made_up_values(kind: str) -> None:
    rng = random.Random(1)
    values = {made_up(kind, rng) for _ in range(300)}
    assert None not in values and len(values) > 100
    assert not any("\n" in str(value) for value in values)


def test_made_up_cards_and_accounts_carry_right_checksums() -> None:
    rng = random.Random(2)
    assert all(luhn(str(made_up("CREDIT_CARD", rng)).replace(" ", "")) for _ in range(200))
    assert all(iban_valid(str(made_up("IBAN", rng))) for _ in range(200))


@pytest.mark.parametrize(
    "kind", ["EMAIL_ADDRESS", "CREDIT_CARD", "IBAN", "US_SSN", "IP_ADDRESS", "API_KEY", "CRYPTO", "URL"]
)
def test_the_scrubber_recognises_the_made_up_values_that_have_a_shape(scrubber: Scrubber, kind: str) -> None:
    rng = random.Random(4)
    for _ in range(100):
        value = str(made_up(kind, rng))
        assert [(s.start, s.end) for s in scrubber.find(value)] == [(0, len(value))], value
