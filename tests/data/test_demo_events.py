from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pocketloop.contracts.events import InteractionEvent
from pocketloop.contracts.recipe import Catalogue
from pocketloop.data.demo import demo_events
from pocketloop.data.demo.grammar import Template, functions, intents, twins

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CATALOGUE = Path(__file__).resolve().parents[2] / "configs" / "catalogues" / "household-functions.json"


@pytest.fixture(scope="module")
def fleet() -> list[dict[str, Any]]:
    return list(demo_events(3000, seed=5, now=NOW))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.model_validate_json(CATALOGUE.read_text())


def _first(fleet: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every event once."""
    return list({event["event_id"]: event for event in fleet}.values())


def test_every_event_is_an_interaction_event(fleet: list[dict[str, Any]]) -> None:
    for event in fleet:
        parsed = InteractionEvent.model_validate(event)
        assert 0 <= parsed.age_days(NOW) <= 60
        assert set(parsed.model_extra or {}) == {"demo"}


def test_the_same_seed_gives_the_same_fleet_and_another_one_does_not(fleet: list[dict[str, Any]]) -> None:
    assert fleet[:300] == list(demo_events(300, seed=5, now=NOW))
    assert not {e["event_id"] for e in fleet} & {e["event_id"] for e in demo_events(300, seed=6, now=NOW)}


def test_a_larger_start_extends_the_fleet_and_leaves_earlier_events_alone(fleet: list[dict[str, Any]]) -> None:
    parts = [*demo_events(1000, seed=5, now=NOW), *demo_events(500, seed=5, start=1000, now=NOW)]
    assert parts == fleet[:1500]
    old, new = ({e["device_id"] for e in part} for part in (parts[:1000], parts[1000:]))
    assert new & old and new - old


def test_fifteen_events_come_from_a_device_which_speaks_one_locale(fleet: list[dict[str, Any]]) -> None:
    devices = {event["device_id"] for event in fleet}
    assert 10 <= len(fleet) / len(devices) <= 20
    assert len({(event["device_id"], event["locale"]) for event in fleet}) == len(devices)
    assert len({event["locale"] for event in fleet}) >= 5


def test_the_fleet_mixes_skills_consent_policies_and_repeats_as_promised(fleet: list[dict[str, Any]]) -> None:
    skills = Counter(event["adapter"]["skill"] for event in fleet)
    assert 0.55 < skills["functions"] / len(fleet) < 0.65 and 0.28 < skills["intent"] / len(fleet) < 0.38
    assert skills["assistant"] > 100
    assert 0.10 < sum(not event["consent"]["training"] for event in fleet) / len(fleet) < 0.21
    assert {event["consent"]["policy"] for event in fleet} == {"2026-01", "2025-06"}
    once = _first(fleet)
    assert 0.01 < 1 - len(once) / len(fleet) < 0.035
    assert all(event in once for event in fleet)


def test_an_id_returns_with_other_content_only_where_faults_are_asked_for(fleet: list[dict[str, Any]]) -> None:
    faulty = list(demo_events(3000, seed=5, now=NOW, faults=True))
    contents = {(event["event_id"], str(event["messages"])) for event in faulty}
    assert 0 < len(contents) - len({event["event_id"] for event in faulty}) < 40
    assert [e for e, f in zip(fleet, faulty, strict=True) if e != f] != []


def test_right_calls_fit_their_schema_and_are_grounded_in_the_users_turns(
    fleet: list[dict[str, Any]], catalogue: Catalogue
) -> None:
    for event in fleet:
        if event["adapter"]["skill"] != "functions" or not event["demo"]["right"]:
            continue
        said = "\n".join(m["content"] for m in event["messages"] if m["role"] == "user")
        calls = [call for m in event["messages"] for call in m.get("tool_calls", [])]
        assert len(calls) == 1
        _assert_grounded(calls[0], said, catalogue)


def test_corrections_hold_the_right_answer(fleet: list[dict[str, Any]], catalogue: Catalogue) -> None:
    corrected = [event for event in fleet if event["feedback"]["correction"]]
    assert len(corrected) > 50
    for event in corrected:
        assert not event["demo"]["right"] and event["feedback"]["rating"] == "down"
        correction = InteractionEvent.model_validate(event).feedback.corrected()
        assert correction is not None
        if event["adapter"]["skill"] == "intent":
            assert correction.content in intents()
            assert correction.content != event["messages"][-1]["content"]
        else:
            said = "\n".join(m["content"] for m in event["messages"] if m["role"] == "user")
            call = correction.tool_calls[0].model_dump()
            given = [c for m in event["messages"] for c in m.get("tool_calls", [])]
            assert call not in given
            if event["adapter"]["skill"] == "functions":
                _assert_grounded(call, said, catalogue)


def _assert_grounded(call: dict[str, Any], said: str, catalogue: Catalogue) -> None:
    declared = catalogue.function(call["name"])
    assert declared is not None
    assert jsonschema.Draft202012Validator(declared["parameters"]).is_valid(call["arguments"]), call
    for key, value in call["arguments"].items():
        if declared["parameters"]["properties"][key].get("x-grounded", True):
            assert str(value) in said


def test_a_value_that_must_stand_in_the_words_is_a_slot_which_no_typo_touches(catalogue: Catalogue) -> None:
    written: list[tuple[str, Template]] = []
    for name, section in functions().items():
        written += [(name, template) for split in section.said.values() for template in split]
        written += [(name, turn) for dialogue in section.ask for turn in (dialogue.first, dialogue.reply)]
    written += [(pair.function, pair.benign) for split in twins().values() for pair in split]
    implied = 0
    for name, template in written:
        declared = catalogue.function(name)
        assert declared is not None
        for key, _ in template.implied:
            implied += 1
            assert not declared["parameters"]["properties"][key].get("x-grounded", True), template.text
    assert implied > 100


def test_one_answer_in_eight_is_wrong_and_thumbs_mostly_say_so(fleet: list[dict[str, Any]]) -> None:
    wrong = [event for event in fleet if not event["demo"]["right"]]
    assert 0.09 < len(wrong) / len(fleet) < 0.15
    thumbs = Counter((event["demo"]["right"], event["feedback"]["rating"]) for event in fleet)
    assert thumbs[False, "down"] > 0.6 * len(wrong)
    rated = sum(count for (_, rating), count in thumbs.items() if rating)
    assert 0.005 < (thumbs[True, "down"] + thumbs[False, "up"]) / rated < 0.06


def test_some_dialogues_ask_back_and_take_arguments_from_several_turns(fleet: list[dict[str, Any]]) -> None:
    longer = [
        e for e in fleet if e["adapter"]["skill"] == "functions" and [m["role"] for m in e["messages"]][2:3] == ["user"]
    ]
    assert len(longer) > 100
    assert any(m["role"] == "tool" for event in fleet for m in event["messages"])


def test_six_in_a_hundred_requests_are_declined(fleet: list[dict[str, Any]]) -> None:
    calls = [
        c for e in fleet if e["adapter"]["skill"] == "functions" for m in e["messages"] for c in m.get("tool_calls", [])
    ]
    unsafe = sum(call["arguments"].get("reason") == "unsafe" for call in calls)
    assert 0.04 < unsafe / len(calls) < 0.09


def test_personal_data_of_ten_types_is_marked_where_it_stands(fleet: list[dict[str, Any]]) -> None:
    types: Counter[str] = Counter()
    for event in fleet:
        for mark in event["demo"]["pii"]:
            text = event["messages"][mark["turn"]]["content"][mark["start"] : mark["end"]]
            assert text and text == text.strip()
            types[mark["type"]] += 1
            if mark["type"] == "EMAIL_ADDRESS":
                assert "@" in text
            if mark["type"] in {"CREDIT_CARD", "US_SSN", "PHONE_NUMBER"}:
                assert sum(char.isdigit() for char in text) >= 9
    assert len(types) >= 10


def test_a_person_keeps_their_values_from_event_to_event() -> None:
    events = list(demo_events(4000, seed=5, now=NOW))
    cards: dict[str, set[str]] = {}
    for event in events:
        for mark in event["demo"]["pii"]:
            if mark["type"] == "CREDIT_CARD":
                value = event["messages"][mark["turn"]]["content"][mark["start"] : mark["end"]]
                cards.setdefault(event["device_id"], set()).add(value)
    assert cards and all(len(values) == 1 for values in cards.values())


def test_without_a_time_the_period_ends_today() -> None:
    event = InteractionEvent.model_validate(next(iter(demo_events(1))))
    assert timedelta(0) < datetime.now(UTC) - event.ts < timedelta(days=62)
