import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.recipe import Catalogue, ScrubConfig
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.records import ScrubbedEvent, count_leaks
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.slots import slots_of, vocabulary_of
from pocketloop.privacy.values import fold

KEY = b"k" * 32
MakeEvent = Callable[..., dict[str, Any]]


def scrubbed(scrubber: Scrubber, raw: dict) -> ScrubbedEvent:
    record = scrubber.scrub_event(raw)
    assert isinstance(record, ScrubbedEvent), record
    return record


def test_a_call_stays_consistent_with_its_message(scrubber: Scrubber, event: MakeEvent) -> None:
    record = scrubbed(
        scrubber,
        event(
            "please buzz xochitl wu on (415) 555-0123",
            ("save_contact", {"name": "Xochitl Wu", "phone": "+14155550123", "nested": {"to": ["Xochitl Wu"]}}),
        ),
    )
    arguments = record.messages[1].tool_calls[0].arguments
    assert record.messages[0].content == f"please buzz {arguments['name']} on {arguments['phone']}"
    assert arguments["nested"]["to"] == [arguments["name"]]
    assert PLACEHOLDER.fullmatch(arguments["name"]).group(1) == "PERSON"


def test_a_correction_is_scrubbed_like_the_answer(scrubber: Scrubber, event: MakeEvent) -> None:
    correction = {"tool_calls": [{"name": "make_call", "arguments": {"who": "Grzegorz"}}]}
    raw = event(
        "phone grzegorz", ("make_call", {"who": "Gregor"}), feedback={"rating": "down", "correction": correction}
    )
    record = scrubbed(scrubber, raw)
    corrected = record.feedback.corrected()
    assert corrected is not None
    assert record.messages[0].content == f"phone {corrected.tool_calls[0].arguments['who']}"
    assert corrected.tool_calls[0].arguments != record.messages[1].tool_calls[0].arguments


def test_a_name_in_the_call_divides_a_longer_name_in_the_message(scrubber: Scrubber, event: MakeEvent) -> None:
    record = scrubbed(scrubber, event("call Anna Kowalska", ("make_call", {"who": "Anna"})))
    called = record.messages[1].tool_calls[0].arguments["who"]
    assert record.messages[0].content.startswith(f"call {called} <PERSON_")


def test_a_value_found_once_is_replaced_in_all_records_of_the_device(scrubber: Scrubber, event: MakeEvent) -> None:
    first = event("hm", ("make_call", {"who": "Brzęczysława"}), event_id="e-1")
    second = event("is brzęczysława home?", "I do not know.", event_id="e-2")
    records = scrubber.scrub([first, second]).records
    assert isinstance(records[0], ScrubbedEvent) and isinstance(records[1], ScrubbedEvent)
    assert records[1].messages[0].content == f"is {records[0].messages[1].tool_calls[0].arguments['who']} home?"


def test_an_everyday_word_as_a_name_does_not_spread(scrubber: Scrubber, event: MakeEvent) -> None:
    first = event("call Will, will you?", ("make_call", {"who": "Will"}), event_id="e-1")
    second = event("will it rain", "No.", event_id="e-2")
    records = scrubber.scrub([first, second]).records
    assert isinstance(records[0], ScrubbedEvent) and isinstance(records[1], ScrubbedEvent)
    assert re.fullmatch(r"call <PERSON_\w{6}>, will you\?", records[0].messages[0].content)
    assert records[1].messages[0].content == "will it rain"


@pytest.mark.parametrize("nobody", ["mom", "my wife", "home", "911"])
def test_roles_and_service_numbers_in_a_slot_name_nobody(scrubber: Scrubber, event: MakeEvent, nobody: str) -> None:
    record = scrubbed(scrubber, event(f"call {nobody}", ("make_call", {"who": nobody})))
    assert record.messages[1].tool_calls[0].arguments == {"who": nobody}


def test_a_tools_answer_stays_the_json_that_it_was(scrubber: Scrubber, event: MakeEvent) -> None:
    answer = (
        '{"status": "ok", "count": 2, "contact_name": "Grzęda", "found": [{"phone": "415-555-0123", "n": [1, 2.5]}]}'
    )
    raw = event("is grzęda home?", ("find_contact", {"query": "grzęda"}))
    raw["messages"].append({"role": "tool", "content": answer})
    record = scrubbed(scrubber, raw)
    told = json.loads(record.messages[2].content)
    assert (told["status"], told["count"], told["found"][0]["n"]) == ("ok", 2, [1, 2.5])
    assert record.messages[0].content == f"is {told['contact_name']} home?"
    assert told["found"][0]["phone"].startswith("<PHONE_NUMBER_")
    assert record.messages[2].content == json.dumps(told, ensure_ascii=False)


@pytest.mark.parametrize("number", [7, 42, 1234, 21.5, "3", "10:30"])
def test_a_short_number_says_nothing_of_anybody(scrubber: Scrubber, event: MakeEvent, number: object) -> None:
    record = scrubbed(scrubber, event("set it", ("set_timer", {"minutes": number})))
    assert record.messages[1].tool_calls[0].arguments == {"minutes": number}


@pytest.mark.parametrize("place", ["the nearest cinema", "Ankara", "Heron swimming pool"])
def test_a_destination_without_a_street_stays(scrubber: Scrubber, event: MakeEvent, place: str) -> None:
    record = scrubbed(scrubber, event(f"go to {place}", ("navigate_to", {"destination": place})))
    assert record.messages[1].tool_calls[0].arguments == {"destination": place}


@pytest.mark.parametrize("street", ["Maple Street", "rue Pelletier", "0 Kenneth Unknownword", "Gartenstraße"])
def test_a_destination_in_a_street_is_an_address(scrubber: Scrubber, event: MakeEvent, street: str) -> None:
    record = scrubbed(scrubber, event(f"go to {street}", ("navigate_to", {"destination": street})))
    address = record.messages[1].tool_calls[0].arguments["destination"]
    assert address.startswith("<ADDRESS_") and record.messages[0].content == f"go to {address}"


def test_one_person_has_one_placeholder_for_a_user_and_another_for_the_next_user(
    scrubber: Scrubber, event: MakeEvent
) -> None:
    texts = []
    for device, event_id in (("d-1", "a"), ("d-1", "b"), ("d-2", "c")):
        record = scrubbed(scrubber, event("call Sandy Wu", "OK.", device=device, event_id=event_id))
        texts.append((record.group, record.messages[0].content))
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[2][0] and texts[0][1] != texts[2][1]
    assert "d-1" not in texts[0][0]


def test_another_key_gives_other_pseudonyms(scrubber: Scrubber, event: MakeEvent) -> None:
    other = Scrubber(ScrubConfig(), b"x" * 32)
    assert scrubbed(other, event("call Bob")).messages != scrubbed(scrubber, event("call Bob")).messages
    assert other.digest != scrubber.digest


@pytest.mark.parametrize("text", ["track 9912345678901234", "I wrote to bob@localhost", "it is a1b2c3d4e5f6a7b8c9"])
def test_unclear_residue_sends_the_event_to_quarantine_without_quoting_it(
    by_patterns: Scrubber, event: MakeEvent, text: str
) -> None:
    record = by_patterns.scrub_event(event(text, "OK."))
    assert isinstance(record, Quarantined)
    assert record.reason == "unclear residue" and record.event_id == "e-1"
    assert text.rsplit(maxsplit=1)[-1] not in record.model_dump_json()


def test_a_malformed_event_is_quarantined_by_the_keys_that_are_wrong(scrubber: Scrubber, event: MakeEvent) -> None:
    record = scrubber.scrub_event({"device_id": "Anna Smith", "messages": []})
    assert isinstance(record, Quarantined)
    assert record.reason == "malformed event" and "messages" in record.detail and "Anna" not in record.detail


def test_nothing_of_the_phone_but_pseudonym_and_versions_is_kept(scrubber: Scrubber, event: MakeEvent) -> None:
    record = scrubbed(scrubber, event("hello", app_version="4.2.0 of Anna Smith <anna@example.com>"))
    assert record.metrics == {"latency_ms": 12.5, "fallback": False}
    assert "Anna" not in record.model_dump_json() and record.app_version == ""


def test_only_the_wanted_types_are_replaced_but_the_others_are_no_residue(event: MakeEvent) -> None:
    scrubber = Scrubber(ScrubConfig(types=["PERSON"]), KEY)
    record = scrubbed(scrubber, event("tell Anna to dial 415-555-0123"))
    assert "415-555-0123" in record.messages[0].content and "Anna" not in record.messages[0].content


def test_an_unknown_type_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown PERSONS.*PERSON"):
        Scrubber(ScrubConfig(types=["PERSONS"]), KEY)


def test_the_recipes_own_labels_and_choices_stay_even_where_they_look_like_a_name(event: MakeEvent) -> None:
    parameters = {"properties": {"metric": {"enum": ["sandy_wu"]}, "tags": {"items": {"enum": ["Bob"]}}}}
    catalogue = Catalogue(functions=[{"name": "log_health", "parameters": parameters}])
    vocabulary = vocabulary_of(catalogue)
    assert vocabulary == {"log_health", "sandy_wu", "Bob"}
    scrubber = Scrubber(ScrubConfig(), KEY, vocabulary=vocabulary)
    call = ("log_health", {"metric": "sandy_wu", "tags": ["Bob"]})
    assert scrubbed(scrubber, event("note my weight", call)).messages[1].tool_calls[0].arguments == call[1]
    assert isinstance(scrubber.scrub_event(event("call Bob", call)), Quarantined)


def test_what_a_program_calls_its_fields_stays_but_a_name_as_a_key_does_not(
    scrubber: Scrubber, event: MakeEvent
) -> None:
    arguments = {"departure_date": "x", "return_date": "x", "pickup_date": "x", "appointment_time": "x"}
    assert (
        scrubbed(scrubber, event("book it", ("BuyTicket", arguments))).messages[1].tool_calls[0].arguments == arguments
    )
    kept = scrubbed(scrubber, event("note it", ("add_note", {"zbigniew": "x"}))).messages[1].tool_calls[0].arguments
    assert "zbigniew" not in kept


def test_slots_come_from_the_catalogue() -> None:
    parameters = {
        "properties": {"who": {"type": "string", "x-pii": "PERSON"}, "all": {"items": {"x-pii": "PERSON"}}, "at": {}}
    }
    catalogue = Catalogue(functions=[{"name": "make_call", "parameters": parameters}])
    assert slots_of(catalogue) == {"make_call": {"who": "PERSON", "all": "PERSON"}}


PIECES = st.sampled_from(
    """call Sandy Wu|Anna Kowalska|415-555-0123|bob@example.com|12 Main Street|the wifi password is hunter2|Will|and
    |will|born on 25 October 1970|@anna|,|.|<PERSON_0a1b2c>|Ł|ß|İstanbul|4111 1111 1111 1111|my plate is B-MW 1234|'s
    |"|王伟|10:30|www.example.com|\n|tell|O'Brien|van der Berg""".split("|")
).map(str.strip)
SENTENCES = st.lists(PIECES, max_size=8)
TEXTS = st.one_of(st.text(max_size=60), SENTENCES.map(" ".join), SENTENCES.map("".join))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=TEXTS, second=TEXTS, who=TEXTS)
def test_no_found_value_survives_and_nothing_crashes(
    scrubber: Scrubber, event: MakeEvent, first: str, second: str, who: str
) -> None:
    raws = [
        event(first, ("make_call", {"who": who, "note": second})),
        event(second, first, event_id="e-2"),
    ]
    result = scrubber.scrub(raws)
    assert len(result.records) == 2
    for record in result.records:
        json.dumps(record.model_dump(mode="json")).encode()
        if isinstance(record, ScrubbedEvent):
            shared = {value for value, _ in result.values if value.shared}
            assert count_leaks(record, shared) == 0
            said = fold(PLACEHOLDER.sub("\0", "\n".join(m.content for m in record.messages)))
            for value in shared:
                words = re.escape(fold(value.text))
                assert not re.search(rf"(?<!\w){words}(?!\w)", said)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=TEXTS, who=TEXTS)
def test_scrubbing_what_was_scrubbed_changes_nothing(
    scrubber: Scrubber, event: MakeEvent, first: str, who: str
) -> None:
    record = scrubber.scrub_event(event(first, ("make_call", {"who": who})))
    if isinstance(record, ScrubbedEvent):
        raw = {**record.model_dump(mode="json"), "device_id": record.group}
        for key in ("group", "found"):
            raw.pop(key)
        again = scrubber.scrub_event(raw)
        assert isinstance(again, ScrubbedEvent)
        assert [m.model_dump() for m in again.messages] == [m.model_dump() for m in record.messages]
