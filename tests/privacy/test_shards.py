import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_shards import Shards

from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.errors import ConfigError, DataError
from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.kept import forget_device
from pocketloop.contracts.recipe import NerConfig, ScrubConfig
from pocketloop.privacy.pseudonyms import load_key
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards

MakeEvent = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def scrubber(by_patterns: Scrubber) -> Scrubber:
    return by_patterns


@pytest.fixture
def shards(event: MakeEvent) -> Shards:
    first = [
        event("call Sandy Wu on 415-555-0123", ("make_call", {"who": "Sandy Wu"}), event_id="a"),
        event("track 9912345678901234", "OK.", event_id="b"),
        event("set a timer for 10 minutes", "Done.", device="d-2", event_id="c"),
    ]
    second = [event("text Bob", "Sent.", device="d-2", event_id="d"), {"not": "an event"}]
    return Shards(one=first, two=second)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def said(folder: Path) -> dict[str, str]:
    rows = [row for path in folder.glob("*.jsonl") for row in read_jsonl(path) if "messages" in row]
    return {row["event_id"]: row["messages"][0]["content"] for row in rows}


def test_each_shard_gets_a_scrubbed_twin_and_what_was_left_out_has_a_reason_and_a_place(
    tmp_path: Path, shards: Shards, scrubber: Scrubber
) -> None:
    report = scrub_shards(shards, tmp_path / "out", scrubber, tmp_path / "cache")
    assert (report.count.entered, report.count.kept) == (5, 3)
    assert report.count.left_out == {"malformed event": 1, "unclear residue": 1}
    assert (report.scrubbed_shards, report.caught) == (2, 0)
    assert report.found == {"PERSON": 3, "PHONE_NUMBER": 1}
    assert [row["event_id"] for row in read_jsonl(tmp_path / "out/one.jsonl")] == ["a", "c"]
    left_out = list(read_jsonl(tmp_path / "out/quarantine.jsonl"))
    assert [(row["where"], row["reason"]) for row in left_out] == [
        ("one:2", "unclear residue"),
        ("two:5", "malformed event"),
    ]


def test_examples_and_what_was_left_out_before_travel_on_and_are_counted(
    tmp_path: Path, shards: Shards, scrubber: Scrubber
) -> None:
    collected = tmp_path / "collected"
    write_jsonl(collected / "examples.jsonl", [{"example_id": "x"}, {"example_id": "y"}])
    write_jsonl(collected / "quarantine.jsonl", [{"stage": "collect", "reason": "no consent"}])
    report = scrub_shards(shards, tmp_path / "out", scrubber, tmp_path / "cache", collected=collected)
    assert (report.count.entered, report.count.kept) == (7, 5)
    assert len(list(read_jsonl(tmp_path / "out/examples.jsonl"))) == 2
    assert [row["stage"] for row in read_jsonl(tmp_path / "out/quarantine.jsonl")] == ["collect", "scrub", "scrub"]


def test_no_file_holds_a_raw_value_but_the_private_ones(tmp_path: Path, shards: Shards, scrubber: Scrubber) -> None:
    scrub_shards(shards, tmp_path / "out", scrubber, tmp_path / "cache")
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    private = list((tmp_path / "cache").rglob("values.jsonl"))
    assert private and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p not in private)
    for value in (b"Sandy", b"Wu", b"Bob", b"0123", b"99123", b"d-1", b"d-2"):
        assert value not in everything
        assert value.lower() not in everything.lower() or len(value) < 4
    found = list(read_jsonl(tmp_path / "out/found.jsonl"))
    assert {row["type"] for row in found} == {"PERSON", "PHONE_NUMBER"}
    assert {row["distinctive"] for row in found if row["type"] == "PHONE_NUMBER"} == {True}
    assert sum(not row["distinctive"] for row in found) >= 1, "a first name alone says nothing"


def test_a_value_found_in_one_shard_is_replaced_in_the_same_devices_others_alone(
    tmp_path: Path, event: MakeEvent, scrubber: Scrubber
) -> None:
    source = Shards(
        one=[event("is grzęda home?", "I do not know.", event_id="a")],
        two=[event("hm", ("make_call", {"who": "Grzęda"}), event_id="b")],
        three=[event("is grzęda home?", "Who?", event_id="c", device="d-2")],
    )
    scrub_shards(source, tmp_path / "out", scrubber, tmp_path / "cache")
    (called,) = [
        row["messages"][1]["tool_calls"][0]["arguments"]["who"] for row in read_jsonl(tmp_path / "out/two.jsonl")
    ]
    assert said(tmp_path / "out")["a"] == f"is {called} home?"
    assert said(tmp_path / "out")["c"] == "is grzęda home?"


def test_new_events_scrub_their_own_shard_and_only_those_where_their_values_stand(
    tmp_path: Path, event: MakeEvent, scrubber: Scrubber
) -> None:
    source = Shards(
        one=[event("is grzęda home?", "I do not know.", event_id="a"), event("thanks", "Welcome.", event_id="a2")],
        two=[event("call Sandy Wu", "Calling.", event_id="b")],
        three=[event("what a day", "Yes.", event_id="c", device="d-2")],
    )
    first = scrub_shards(source, tmp_path / "one", scrubber, tmp_path / "cache")
    assert (first.scrubbed_shards, first.reused_shards) == (3, 0)
    again = scrub_shards(source, tmp_path / "two", scrubber, tmp_path / "cache")
    assert (again.scrubbed_shards, again.reused_shards) == (0, 3)
    assert {**contents(tmp_path / "two"), "scrub.html": b""} == {**contents(tmp_path / "one"), "scrub.html": b""}
    source.shards["four"] = [event("hm", ("make_call", {"who": "Grzęda"}), event_id="d")]
    more = scrub_shards(source, tmp_path / "three", scrubber, tmp_path / "cache")
    assert (more.scrubbed_shards, more.reused_shards) == (2, 2)
    assert "grzęda" not in said(tmp_path / "three")["a"]
    del source.shards["four"]
    scrub_shards(source, tmp_path / "four", scrubber, tmp_path / "cache")
    assert said(tmp_path / "four") == said(tmp_path / "one")


def test_the_same_input_gives_the_same_bytes_with_and_without_cache_and_in_parallel(
    tmp_path: Path, event: MakeEvent, scrubber: Scrubber
) -> None:
    names = ["Sandy Wu", "Anna Kowalska", "Xochitl", "Bob", "Maria Garcia"]
    source = Shards(
        **{
            f"shard-{n:02}": [
                event(f"call {names[(n + k) % 5]}", "OK.", event_id=f"{n}-{k}", device=f"d-{k}") for k in range(3)
            ]
            for n in range(9)
        }
    )
    scrub_shards(source, tmp_path / "one", scrubber, tmp_path / "cache")
    scrub_shards(source, tmp_path / "two", scrubber, tmp_path / "other")
    both = ComputeConfig(workers=2)
    report = scrub_shards(source, tmp_path / "three", scrubber, tmp_path / "third", compute=both)
    assert report.scrubbed_shards == 9
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "three")


def test_a_value_in_another_spelling_is_seen_by_the_leak_audit_and_withheld(tmp_path: Path, event: MakeEvent) -> None:
    scrubber = Scrubber(ScrubConfig(types=["PERSON"], ner=NerConfig(engine="none")), b"k" * 32)
    source = Shards(
        one=[event("hm", ("call", {"contact": "Anna Großmuster"}), event_id="a")],
        two=[event("is grossmuster in", "No.", event_id="b"), event("hello", "Hi.", event_id="c")],
    )
    report = scrub_shards(source, tmp_path / "out", scrubber, tmp_path / "cache")
    assert set(said(tmp_path / "out")) == {"a", "c"}
    assert (report.caught, report.count.left_out) == (1, {"a found value survived": 1})


def test_forgetting_a_device_erases_every_entry_that_knows_of_it_and_no_other(
    tmp_path: Path, shards: Shards, scrubber: Scrubber
) -> None:
    cache = tmp_path / "cache"
    scrub_shards(shards, tmp_path / "out", scrubber, cache)
    (cache / ".left.by.a.killed.run.part").mkdir()
    assert forget_device(cache, scrubber.pseudonyms.group("d-1")) == 1
    left = b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
    assert b"sandy" not in left and b"bob" in left
    assert not list(cache.glob(".*"))
    assert forget_device(cache, scrubber.pseudonyms.group("d-1")) == 0
    assert forget_device(tmp_path / "nothing", "g-0") == 0
    report = scrub_shards(shards, tmp_path / "again", scrubber, cache)
    assert (report.scrubbed_shards, report.reused_shards) == (1, 1)


def test_entries_under_another_key_are_dropped(tmp_path: Path, shards: Shards, scrubber: Scrubber) -> None:
    scrub_shards(shards, tmp_path / "one", scrubber, tmp_path / "cache")
    scrub_shards(shards, tmp_path / "two", Scrubber(ScrubConfig(), b"x" * 32), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("name", ["quarantine", "found", "examples"])
def test_a_shard_of_a_name_that_is_taken_is_refused(tmp_path: Path, scrubber: Scrubber, name: str) -> None:
    with pytest.raises(DataError, match=name):
        scrub_shards(Shards(**{name: []}), tmp_path / "out", scrubber, tmp_path / "cache")


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


@pytest.mark.parametrize("name", ["events.jsonl", "values.jsonl", "stats.json"])
def test_a_damaged_entry_is_noticed_and_scrubbed_again(
    tmp_path: Path, shards: Shards, scrubber: Scrubber, name: str
) -> None:
    scrub_shards(shards, tmp_path / "one", scrubber, tmp_path / "cache")
    for path in [*(tmp_path / "cache").rglob(name)]:
        content = path.read_bytes()
        path.unlink()  # it may lie in the stage's folder as well
        path.write_bytes(content[:-4])
    scrub_shards(shards, tmp_path / "two", scrubber, tmp_path / "cache")
    assert said(tmp_path / "two") == said(tmp_path / "one")
