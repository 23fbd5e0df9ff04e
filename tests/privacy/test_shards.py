import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import ConfigError, DataError
from pocketloop.contracts.files import read_jsonl
from pocketloop.contracts.home import Home
from pocketloop.privacy.pseudonyms import load_key
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards

MakeEvent = Callable[..., dict[str, Any]]


@pytest.fixture
def shards(tmp_path: Path, event: MakeEvent) -> list[Path]:
    first = [
        event("call Sandy Wu on 415-555-0123", ("make_call", {"who": "Sandy Wu"}), event_id="a"),
        event("track 9912345678901234", "OK.", event_id="b"),
        event("set a timer for 10 minutes", "Done.", device="d-2", event_id="c"),
    ]
    second = [event("text Bob", "Sent.", device="d-2", event_id="d")]
    paths = []
    for name, rows in (("0001.jsonl", first), ("0002.jsonl", second)):
        path = tmp_path / "raw" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "".join(json.dumps(row) + "\n" for row in rows) + ("not json\n" if name == "0002.jsonl" else "")
        )
        paths.append(path)
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_shard_gets_a_scrubbed_twin_and_what_was_left_out_has_a_reason_and_a_place(
    tmp_path: Path, shards: list[Path], scrubber: Scrubber
) -> None:
    report = scrub_shards(shards, tmp_path / "out", scrubber, tmp_path / "cache")
    assert (report.records, report.quarantined, report.scrubbed_shards, report.leaks) == (3, 2, 2, 0)
    assert report.found == {"PERSON": 3, "PHONE_NUMBER": 1}
    assert [row["event_id"] for row in read_jsonl(tmp_path / "out/0001.jsonl")] == ["a", "c"]
    left_out = list(read_jsonl(tmp_path / "out/quarantine.jsonl"))
    assert [(row["where"], row["reason"]) for row in left_out] == [
        ("0001.jsonl:2", "unclear residue"),
        ("0002.jsonl:2", "not a JSON object"),
    ]


def test_no_file_holds_a_raw_value(tmp_path: Path, shards: list[Path], scrubber: Scrubber) -> None:
    scrub_shards(shards, tmp_path / "out", scrubber, tmp_path / "cache")
    everything = b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "raw" not in path.parts
    )
    for value in (b"Sandy", b"Wu", b"Bob", b"0123", b"99123", b"d-1", b"d-2"):
        assert value not in everything
    found = list(read_jsonl(tmp_path / "out/found.jsonl"))
    assert {row["type"] for row in found} == {"PERSON", "PHONE_NUMBER"}
    assert {row["distinctive"] for row in found if row["type"] == "PHONE_NUMBER"} == {True}
    assert sum(not row["distinctive"] for row in found) >= 1, "a first name alone says nothing"


def test_an_unchanged_shard_is_not_scrubbed_again(tmp_path: Path, shards: list[Path], scrubber: Scrubber) -> None:
    scrub_shards(shards, tmp_path / "one", scrubber, tmp_path / "cache")
    with open(shards[1], "a") as handle:
        handle.write("[]\n")
    report = scrub_shards(shards, tmp_path / "two", scrubber, tmp_path / "cache")
    assert (report.reused_shards, report.scrubbed_shards) == (1, 1)
    assert (tmp_path / "one/0001.jsonl").read_bytes() == (tmp_path / "two/0001.jsonl").read_bytes()


def test_the_same_input_gives_the_same_bytes_with_and_without_the_cache(
    tmp_path: Path, shards: list[Path], scrubber: Scrubber
) -> None:
    scrub_shards(shards, tmp_path / "one", scrubber, tmp_path / "cache")
    scrub_shards(shards, tmp_path / "two", scrubber, tmp_path / "cache")
    scrub_shards(list(reversed(shards)), tmp_path / "three", scrubber, tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "three")


def test_two_shards_of_one_name_are_refused(tmp_path: Path, shards: list[Path], scrubber: Scrubber) -> None:
    with pytest.raises(DataError, match=r"0001\.jsonl"):
        scrub_shards([shards[0], shards[0]], tmp_path / "out", scrubber, tmp_path / "cache")


def test_the_key_is_made_once_and_only_its_owner_can_read_it(home: Path) -> None:
    key = load_key(Home())
    assert len(key) == 32 and load_key(Home()) == key
    assert stat.S_IMODE((home / "keys").stat().st_mode) == 0o700
    assert [stat.S_IMODE(p.stat().st_mode) for p in (home / "keys").iterdir()] == [0o600]


def test_a_damaged_key_is_not_silently_replaced(home: Path) -> None:
    load_key(Home())
    path = home / "keys/pseudonyms.key"
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes instead of 32"):
        load_key(Home())
    assert path.read_bytes() == b"short"


@pytest.mark.slow
def test_phone_numbers_and_street_addresses_never_survive_in_real_dialogues(
    tmp_path: Path, shared_data: Path, scrubber: Scrubber
) -> None:
    import gzip
    import re

    shard = tmp_path / "0001.jsonl"
    with gzip.open(shared_data / "sgd/events.jsonl.gz", "rt") as source:
        shard.write_text("".join(line for line, _ in zip(source, range(400), strict=False)))
    report = scrub_shards([shard], tmp_path / "out", scrubber, tmp_path / "cache")
    assert report.leaks == 0 and report.quarantined <= 4
    texts = (tmp_path / "out/0001.jsonl").read_text()
    assert not re.search(r"\b\d{3}-\d{3}-\d{4}\b", texts)
    assert not re.search(r"\b\d{2,5} [A-Z]\w+ (?:Street|Avenue|Road|Boulevard|Lane|Drive|Court)\b(?! Station)", texts)
