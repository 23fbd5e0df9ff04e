"""However a device's events are cut into shards, and in whatever steps they arrive, they come out as if at once."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_shards import Shards

from pocketloop.contracts.files import read_jsonl
from pocketloop.privacy.leaks import LeakSearch
from pocketloop.privacy.records import ScrubbedEvent
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards

MakeEvent = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def scrubber(by_patterns: Scrubber) -> Scrubber:
    return by_patterns


SAID = st.lists(
    st.sampled_from(
        """call|Sandy Wu|sandy|Wu|xochitl|Grzęda|grzęda|is|home|will|Will|415-555-0123|4155550123|bob@example.com|bob
        |12 Main Street|main street|Anna|Kowalska|Anna Kowalska|the wifi password is|hunter2|hunter|9912345678901234|and
        |ΝΙΚΟΣ|νικος|@anna|.|,""".split("|")
    ).map(str.strip),
    min_size=1,
    max_size=6,
).map(" ".join)
TURNS = st.tuples(st.sampled_from(["d-1", "d-2"]), SAID, st.one_of(st.none(), SAID))


def _kept_at_once(scrubber: Scrubber, events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What all events of each device become when they are scrubbed together and searched for all that was found."""
    by_device: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        by_device[event["device_id"]].append(event)
    kept = {}
    for device, together in by_device.items():
        done = scrubber.scrub(together)
        search = LeakSearch(done.shared.get(scrubber.pseudonyms.group(device), set()))
        for record in done.records:
            if isinstance(record, ScrubbedEvent) and not search.count(record.model_dump(mode="json")):
                kept[record.event_id] = record.model_dump(mode="json")
    return kept


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(turns=st.lists(TURNS, min_size=1, max_size=7), cuts=st.lists(st.integers(1, 3), min_size=7, max_size=7))
def test_cutting_a_devices_events_into_shards_changes_nothing(
    scrubber: Scrubber, event: MakeEvent, turns: list[tuple[str, str, str | None]], cuts: list[int]
) -> None:
    events = [
        event(said, ("make_call", {"who": who}) if who else "OK.", device=device, event_id=f"e-{place}")
        for place, (device, said, who) in enumerate(turns)
    ]
    expected = _kept_at_once(scrubber, events)
    with tempfile.TemporaryDirectory() as folder:
        source, rest = Shards(), events
        found: dict[str, bytes] = {}
        for place, size in enumerate(cuts):
            source.shards[f"shard-{place}"], rest = rest[:size], rest[size:]
            report = scrub_shards(source, Path(folder) / "out", scrubber, Path(folder) / "cache")
            if not rest:
                break
        out = Path(folder) / "out"
        rows = [row for path in sorted(out.glob("shard-*")) for row in read_jsonl(path)]
        found = {"cut": (out / "found.jsonl").read_bytes()}
        scrub_shards(Shards(whole=events), out, scrubber, Path(folder) / "cache")
        found["whole"] = (out / "found.jsonl").read_bytes()
    assert {row["event_id"]: row for row in rows} == expected
    assert report.count.kept == len(expected) and report.count.entered == len(events)
    assert found["cut"] == found["whole"]
    assert json.dumps(sorted(expected)) == json.dumps(sorted(row["event_id"] for row in rows))
