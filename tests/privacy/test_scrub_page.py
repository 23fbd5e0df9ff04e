import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_shards import Shards

from pocketloop.contracts.reports import Estimate, LeakAudit, ScrubReport, StageCount, TypeRecall
from pocketloop.privacy.report import render_page
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards

MakeEvent = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def scrubber(by_patterns: Scrubber) -> Scrubber:
    return by_patterns


SOME = Estimate(value=0.97, n=200, low=0.94, high=0.98)
NONE = Estimate(value=0.0, n=0, low=0.0, high=1.0)
REPORT = ScrubReport(
    count=StageCount(stage="scrub", entered=1234, kept=1230, left_out={"unclear residue": 3, "<b>new</b>": 1}),
    found={"PERSON": 4321, "PHONE_NUMBER": 7},
    reused_shards=2,
    scrubbed_shards=1,
    caught=0,
    scrubber="abc123",
)
AUDIT = LeakAudit(
    scrubber="abc123",
    rows=10_000,
    types=[
        TypeRecall(type="PERSON", labelled=200, whole=194, spurious=5, recall=SOME, precision=SOME),
        TypeRecall(type="URL", labelled=0, whole=0, spurious=0, recall=NONE, precision=NONE),
    ],
)


def test_the_page_tells_counts_reasons_and_figures_and_needs_nothing_beside_it() -> None:
    page = render_page(REPORT.model_copy(update={"audit": AUDIT}))
    for part in ("1,234", "4,321", "unclear residue", "0.970", "10,000", "nothing survived", "0.24 %"):
        assert part in page
    assert "<b>new</b>" not in page
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page) and page.count("<svg") == 2


def test_the_page_says_so_when_values_survived_and_when_there_are_no_figures() -> None:
    page = render_page(REPORT.model_copy(update={"caught": 2, "found": {}}))
    assert "2 survived, withheld" in page and "Nothing was found" in page and "No figures" in page


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render_page(REPORT) == render_page(REPORT)


def test_no_planted_value_stands_in_the_page_or_the_report(
    tmp_path: Path, event: MakeEvent, scrubber: Scrubber
) -> None:
    planted = [
        "Xochitl",
        "Brzeziński",
        "415-555-0123",
        "4155550123",
        "bob@mail.example",
        "hunter2",
        "Santana",
        "9912345",
    ]
    source = Shards(
        one=[
            event("call Xochitl Brzeziński on 415-555-0123, mail bob@mail.example", "OK.", event_id="a"),
            event("the wifi password is hunter2, we live at 377 Santana Row", "OK.", event_id="b"),
            event("track 9912345678901234", "OK.", event_id="c"),
        ]
    )
    report = scrub_shards(source, tmp_path / "out", scrubber, tmp_path / "cache")
    page = (tmp_path / "out" / "scrub.html").read_text() + report.model_dump_json()
    assert sum(report.found.values()) >= 5
    for value in planted:
        assert value.lower() not in page.lower()
