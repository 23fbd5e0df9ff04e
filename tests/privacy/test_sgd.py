"""Real dialogues with services: what the services were told about people is nowhere in what is kept.

The searches here share nothing with the scrubber: plain patterns of American numbers and addresses, and the services'
own arguments.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.files import read_jsonl
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards
from pocketloop.privacy.sources import FolderShards

pytestmark = pytest.mark.slow

PEOPLE = {"therapist_name", "recipient_name", "director", "starring", "actors"}
NOBODY = {"mom", "dad"}
PHONE = re.compile(r"\d{3}[-. ]\d{3}[-. ]\d{4}")
STREET = re.compile(
    r"\b\d{1,5} (?:[NSEW]\.? |North |South |East |West )?(?:[A-Z][\w']+ ){1,3}"
    r"(?:Street|Avenue|Road|Boulevard|Lane|Drive|Court|Way|Place|Row|Square|Parkway|Highway|St|Ave|Rd|Blvd|Ln|Dr|Ct)\b"
)


@pytest.fixture(scope="module")
def dialogues(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, scrubber: Scrubber
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Raw events, and the scrubbed ones by event id."""
    folder = tmp_path_factory.mktemp("sgd")
    (folder / "raw").mkdir()
    with gzip.open(shared_data / "sgd/events.jsonl.gz", "rt") as file:
        lines = list(file)
    for start in range(0, len(lines), 500):
        (folder / "raw" / f"events-{start:05}.jsonl").write_text("".join(lines[start : start + 500]))
    report = scrub_shards(FolderShards(folder / "raw"), folder / "out", scrubber, folder / "cache")
    assert report.caught == 0
    assert report.count.kept >= 0.8 * report.count.entered
    rows = [row for path in (folder / "out").glob("events-*") for row in read_jsonl(path)]
    return [json.loads(line) for line in lines], {row["event_id"]: row for row in rows}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def text_of(event: dict[str, Any]) -> str:
    return "\n".join(strings([event["messages"], event.get("feedback")]))


def test_no_phone_number_and_no_street_address_survives(dialogues: Any) -> None:
    raw, kept = dialogues
    before = "\n".join(text_of(event) for event in raw)
    after = "\n".join(text_of(event) for event in kept.values())
    assert len(PHONE.findall(before)) > 300 and len(STREET.findall(before)) > 600
    assert PHONE.findall(after) == []
    assert STREET.findall(after) == []


def test_no_name_of_a_person_in_a_services_arguments_survives_in_its_dialogue(dialogues: Any) -> None:
    raw, kept = dialogues
    looked_for: Counter[str] = Counter()
    for event in raw:
        said = text_of(kept[event["event_id"]]).casefold() if event["event_id"] in kept else ""
        for message in event["messages"]:
            for call in message.get("tool_calls") or []:
                for name in PEOPLE & call["arguments"].keys():
                    value = call["arguments"][name].casefold()
                    looked_for[name] += value not in NOBODY
                    assert value in NOBODY or not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", said), name
    assert min(looked_for[name] for name in PEOPLE) > 40 and sum(looked_for.values()) > 500
