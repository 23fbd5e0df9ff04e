from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.pseudonyms import Pseudonymizer
from pocketloop.privacy.records import ScrubbedEvent
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.values import clean_text

MakeEvent = Callable[..., dict[str, Any]]
SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.sampled_from(
    ["Sandy Wu", "Xochitl", "Anna Kowalska", "Bob", "王伟", "O'Brien", "Łucja", "José García", "Will"]
)
PHONES = st.sampled_from(["415-555-0123", "(415) 555-0123", "+1 415 555 0123", "07700 900123", "0491 570 156"])
DEVICES = st.text(min_size=1, max_size=20)
PHONE_IDS = DEVICES.map("phone {}".format).filter(lambda device: clean_text(device) == device)
"""Ids that no field's name contains, and that stay as they are where invisible characters are taken out."""


@given(
    key=st.binary(min_size=32, max_size=32), device=DEVICES, kind=st.sampled_from(["PERSON", "URL"]), value=st.text()
)
def test_a_value_has_one_pseudonym_for_a_device_and_tells_nothing_of_it(
    key: bytes, device: str, kind: str, value: str
) -> None:
    pseudonyms = Pseudonymizer(key)
    placeholder = pseudonyms.placeholder(device, kind, value)
    assert placeholder == Pseudonymizer(key).placeholder(device, kind, value)
    match = PLACEHOLDER.fullmatch(placeholder)
    assert match and match.group(1) == kind
    assert placeholder != pseudonyms.placeholder(device + "x", kind, value)
    assert placeholder != pseudonyms.placeholder(device, kind, value + "x")


def test_two_peoples_equal_values_share_pseudonyms_no_more_often_than_any_two() -> None:
    pseudonyms = Pseudonymizer(b"k" * 32)
    given = {pseudonyms.placeholder(f"d-{n}", "PERSON", "anna") for n in range(5000)}
    # 5,000 of 16.8 million: 0.75 pairs are expected to collide, more than six practically never.
    assert len(given) >= 5000 - 6


def test_no_use_of_the_key_can_be_joined_with_another() -> None:
    pseudonyms = Pseudonymizer(b"k" * 32)
    uses = [pseudonyms.group("x")[2:], pseudonyms.fingerprint("x"), pseudonyms.key_digest]
    uses += [pseudonyms.placeholder("x", "PERSON", "x")[8:14], pseudonyms.placeholder("x", "URL", "x")[5:11]]
    assert len({use[:6] for use in uses}) == len(uses)


@SLOW
@given(who=NAMES, phone=PHONES, note=st.sampled_from(["", "please", "now"]))
def test_a_call_says_what_its_message_says(
    scrubber: Scrubber, event: MakeEvent, who: str, phone: str, note: str
) -> None:
    raw = event(f"call {who} on {phone} {note}".strip(), ("save_contact", {"name": who, "phone": phone}))
    record = scrubber.scrub_event(raw)
    assert isinstance(record, ScrubbedEvent)
    arguments = record.messages[1].tool_calls[0].arguments
    assert record.messages[0].content == f"call {arguments['name']} on {arguments['phone']} {note}".strip()
    assert PLACEHOLDER.fullmatch(arguments["name"]) and PLACEHOLDER.fullmatch(arguments["phone"])


@SLOW
@given(who=NAMES, devices=st.lists(PHONE_IDS, min_size=2, max_size=4, unique=True))
def test_one_user_is_told_from_another_but_never_linked_to_one(
    scrubber: Scrubber, event: MakeEvent, who: str, devices: list[str]
) -> None:
    raws = [
        event(f"call {who}", ("make_call", {"who": who}), device=device, event_id=f"{place}-{turn}")
        for turn in range(2)
        for place, device in enumerate(devices)
    ]
    records = [record for record in scrubber.scrub(raws).records if isinstance(record, ScrubbedEvent)]
    assert len(records) == len(raws)
    by_group: dict[str, set[str]] = {}
    for record in records:
        by_group.setdefault(record.group, set()).add(record.messages[0].content)
    assert all(len(said) == 1 for said in by_group.values())
    assert len({said.pop() for said in by_group.values()}) == len(by_group)
    everything = "".join(record.model_dump_json() for record in records)
    assert not any(device in everything for device in devices)
