from typing import Any

import pytest

from pocketloop.privacy.audit import Counts, audit
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.spans import Span, settle


def row(text: str, *values: tuple[str, str]) -> dict[str, Any]:
    spans = [
        {"start": text.index(value), "end": text.index(value) + len(value), "type": kind} for value, kind in values
    ]
    return {"text": text, "spans": spans}


def test_whole_partial_missed_and_spurious_finds_are_told_apart(scrubber: Scrubber) -> None:
    rows = [
        row("call Sandy Wu", ("Sandy Wu", "PERSON")),
        row("Sandy Wu-tang lives", ("Sandy Wu-tang lives", "PERSON")),
        row("the qqq is here", ("qqq", "PERSON")),
        row("dial 415-555-0123"),
    ]
    counts = audit(scrubber, rows)
    assert counts["PERSON"] == Counts(whole=1, part=1, missed=1)
    assert counts["PHONE_NUMBER"] == Counts(spurious=1)
    assert counts["PERSON"].recall == pytest.approx(1 / 3)
    assert counts["PHONE_NUMBER"].precision == 0


def test_what_a_longer_find_leaves_of_another_stays_personal_data() -> None:
    text = "12 Main Street Boston Smith"
    spans = settle(text, [Span(0, 21, "ADDRESS"), Span(15, 27, "PERSON")])
    assert [(text[s.start : s.end], s.type) for s in spans] == [
        ("12 Main Street Boston", "ADDRESS"),
        ("Smith", "PERSON"),
    ]
