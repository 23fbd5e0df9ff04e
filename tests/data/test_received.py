"""The landing zone: parts are whole, immutable and named by content, in a folder, in memory and in an object store."""

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketloop.contracts.collecting import CollectorConfig
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import canonical_json
from pocketloop.contracts.home import Home
from pocketloop.data.received import Received, device_digest

DAY = date(2026, 11, 21)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(params=["folder", "memory", "s3"])
def received(request: pytest.FixtureRequest, tmp_path: Path) -> Received:
    if request.param == "folder":
        return Received(str(tmp_path / "received"))
    if request.param == "memory":
        return Received(f"memory://{tmp_path.name}")
    return Received(request.getfixturevalue("s3"))


def line(device: str, number: int = 0, **more: Any) -> bytes:
    return canonical_json({"event_id": f"e{number}", "device_id": device, **more}).encode()


def test_what_was_written_is_listed_in_order_and_read(received: Received) -> None:
    assert received.parts() == []
    second = received.write(DAY, [line("a", 2)], hint="0002")
    first = received.write(DAY, [line("a", 1), line("b", 1)], hint="0001")
    earlier = received.write(date(2026, 11, 20), [line("c")], hint="0009")
    assert received.parts() == [earlier, first, second]
    assert first.startswith("day=2026-11-21/part-0001-") and first.endswith(".jsonl.gz")
    assert list(received.read(first)) == [line("a", 1), line("b", 1)]
    assert received.parts(after={earlier, second}) == [first]


def test_the_same_lines_written_again_are_the_same_part(received: Received) -> None:
    name = received.write(DAY, [line("a")], hint="1")
    assert received.write(DAY, [line("a")], hint="1") == name
    assert received.write(DAY, [line("b")], hint="1") != name
    assert len(received.parts()) == 2


def test_another_process_is_seen_at_once(received: Received) -> None:
    other = Received(received.address)
    assert received.tombstones() == set()
    name = other.write(DAY, [line("a")])
    other.add_tombstone(device_digest("a"), NOW)
    assert received.parts() == [name]
    assert received.tombstones() == {device_digest("a")}


def test_a_removed_device_leaves_no_line_and_the_others_stay_in_order(received: Received) -> None:
    mixed = received.write(DAY, [line("a", 1), line("b", 2), line("a", 3), line("c", 4, text="a")], hint="1")
    only = received.write(DAY, [line("a", 5)], hint="2")
    other = received.write(DAY, [line("b", 6)], hint="3")
    assert received.remove_device("a") == 3
    rewritten, untouched = received.parts()
    assert untouched == other and rewritten not in (mixed, only) and "part-1-" in rewritten
    assert list(received.read(rewritten)) == [line("b", 2), line("c", 4, text="a")]
    assert received.remove_device("a") == 0


def test_a_device_is_found_however_its_id_is_escaped(received: Received) -> None:
    strange = 'ä"\\\n😀'
    received.write(DAY, [json.dumps({"device_id": strange}).encode(), line(strange), line("other", text=strange)])
    assert received.remove_device(strange) == 2
    (part,) = received.parts()
    assert list(received.read(part)) == [line("other", text=strange)]


def test_devices_are_removed_by_their_digests_from_named_parts(received: Received) -> None:
    first = received.write(DAY, [line("a"), line("b"), b"no json"])
    second = received.write(DAY, [line("a", 2)])
    assert received.remove_forgotten([first], {device_digest("a")}) == 1
    assert second in received.parts()
    (rewritten,) = set(received.parts()) - {second}
    assert list(received.read(rewritten)) == [line("b"), b"no json"]


def test_days_before_the_retention_are_dropped(received: Received) -> None:
    names = [received.write(date(2026, month, day), [line("a")]) for month, day in ((5, 31), (6, 1), (11, 21))]
    assert received.drop_before(date(2026, 6, 1)) == 1
    assert received.parts() == names[1:]
    assert received.drop_before(date(2026, 6, 1)) == 0


def test_a_tombstone_names_no_device_and_keeps_its_first_moment(tmp_path: Path) -> None:
    received = Received(str(tmp_path))
    received.add_tombstone(device_digest("phone-7"), NOW)
    received.add_tombstone(device_digest("phone-7"), NOW.replace(year=2027))
    (path,) = (tmp_path / "tombstones").iterdir()
    assert "phone-7" not in path.name + path.read_text()
    assert json.loads(path.read_text())["forgotten"] == "2026-11-21T12:00:00+00:00"
    assert received.parts() == []


def test_what_a_killed_writer_left_is_no_part(tmp_path: Path) -> None:
    received = Received(str(tmp_path))
    name = received.write(DAY, [line("a")])
    (tmp_path / "day=2026-11-21" / ".part-x.jsonl.gz.abc.part").write_bytes(b"half")
    assert received.parts() == [name]


def test_a_local_landing_zone_is_the_owners_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    Received.of(CollectorConfig(), home).write(DAY, [line("a")])
    assert home.received.stat().st_mode & 0o777 == 0o700
    assert Received.of(CollectorConfig(store=str(tmp_path / "else")), home).parts() == []


def test_a_damaged_part_is_named_after_its_good_lines(tmp_path: Path) -> None:
    received = Received(str(tmp_path))
    name = received.write(DAY, [line("a", i, text=str(hash(i))) for i in range(1000)])
    whole = (tmp_path / name).read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:-4] + b"\0\0\0\0", b"no gzip"):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(DataError, match=f"{name} is damaged"):
            list(received.read(name))


def test_storage_that_fails_is_an_error_with_its_address(s3: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s3://no-such-bucket/x: cannot write day=2026-11-21/part-"):
        Received("s3://no-such-bucket/x").write(DAY, [line("a")])
    with pytest.raises(DataError, match=r"cannot read day=2026-11-21/part-x"):
        list(Received(str(tmp_path)).read("day=2026-11-21/part-x.jsonl.gz"))
    with pytest.raises(DataError, match=r"carrierpigeon://.*collector\.yaml"):
        Received("carrierpigeon://roof")


@settings(max_examples=50, deadline=None)
@given(
    events=st.lists(st.tuples(st.text(min_size=1, max_size=4), st.text(max_size=6)), min_size=1, max_size=12),
    data=st.data(),
)
def test_removal_takes_exactly_the_devices_lines(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, str]], data: st.DataObject
) -> None:
    received = Received(str(tmp_path_factory.mktemp("received")))
    device = data.draw(st.sampled_from([device for device, _ in events]))
    lines = [line(device, i, text=text) for i, (device, text) in enumerate(events)]
    received.write(DAY, lines)
    wanted = [text for text, (owner, _) in zip(lines, events, strict=True) if owner != device]
    assert received.remove_device(device) == len(lines) - len(wanted)
    assert [found for part in received.parts() for found in received.read(part)] == wanted


def test_parts_are_gzip_that_anything_reads(tmp_path: Path) -> None:
    name = Received(str(tmp_path)).write(DAY, [line("a"), line("b")])
    assert gzip.decompress((tmp_path / name).read_bytes()) == line("a") + b"\n" + line("b") + b"\n"
