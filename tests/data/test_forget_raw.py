import gzip
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from event_lines import NOW, event, holding, lines, post, put
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.data.event_log import inspect_log, open_log
from pocketloop.data.forget import Traces, bury, erase_raw, touched_releases, traces_of, withdrawn
from pocketloop.data.parsing import parse_event
from pocketloop.data.pull import pull
from pocketloop.data.received import Received, device_digest
from pocketloop.services.event_inbox import Arrival, EventInbox

WORDS = ("Kowalski",)


class Place:
    """A home with a log, a landing zone and a demo fleet."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.received = Received(str(self.home.received))
        self.log = self.home.events

    def forget(self, device: str) -> dict[str, int]:
        traces = traces_of(self.home, device)
        bury(self.home, self.received, traces, touched_releases(self.home, traces), NOW)
        return erase_raw(self.home, self.received, traces).model_dump()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home")


def counts(**found: int) -> dict[str, int]:
    """What was erased where; nothing anywhere else."""
    return {"events": 0, "quarantined": 0, "received": 0, "journal": 0, "waiting": 0, "demo": 0, "verdicts": 0} | found


def secret(number: int, device: str) -> dict:
    """An event whose words are nobody else's."""
    said = f"{device} said Zanzibar"
    return event(number, device, messages=[{"role": "user", "content": said}])


def test_not_one_byte_of_a_device_stays_where_raw_events_lie(place: Place) -> None:
    home = place.home
    put(place.log, *(secret(n, f"d{n % 3}") for n in range(300)), b'{"device_id": "d1", "messages": broken')
    post(place.received, *(secret(n, f"d{n % 3}") for n in range(200, 400)))
    pull(place.received, place.log, NOW)
    (home.root / "demo").mkdir()
    (home.root / "demo" / "events-1-20261120-9.jsonl").write_bytes(lines(*(secret(n, f"d{n % 3}") for n in range(9))))
    assert place.forget("d1") == counts(events=133, quarantined=1, received=66, demo=3)
    assert holding(home.root, "d1 said", '"d1"', "d1-e1") == []
    assert len(holding(home.root, "d2 said Zanzibar")) == 3, "the others' events are still in all three places"
    assert inspect_log(place.log).events == 267


def test_forgetting_again_finds_nothing_and_changes_nothing(place: Place) -> None:
    put(place.log, secret(1, "d1"), secret(2, "d2"))
    place.forget("d1")
    before = sorted((p, p.read_bytes()) for p in place.received.local.rglob("*.json"))  # type: ignore[union-attr]
    assert set(place.forget("d1").values()) == {0}
    assert before == sorted((p, p.read_bytes()) for p in place.received.local.rglob("*.json"))  # type: ignore[union-attr]


def test_an_unknown_device_is_refused_from_then_on(place: Place) -> None:
    assert set(place.forget("never seen").values()) == {0}
    assert put(place.log, secret(1, "never seen")).quarantined == {"forgotten": 1}
    assert "never seen" not in "".join(p.name for p in place.home.root.rglob("*"))
    assert holding(place.home.root, "never seen") == []


def test_a_dry_run_counts_the_same_and_writes_nothing(place: Place) -> None:
    put(place.log, secret(1, "d1"), b'"d1", cut off')
    post(place.received, secret(2, "d1"))
    traces = traces_of(place.home, "d1")
    told = erase_raw(place.home, place.received, traces, dry_run=True)
    assert holding(place.home.root, "Zanzibar")
    assert place.received.tombstones() == set()
    assert told.model_dump() == place.forget("d1") == counts(events=1, quarantined=1, received=1)


def test_what_people_said_of_its_answers_goes_and_what_they_said_of_others_stays(place: Place) -> None:
    put(place.log, secret(1, "d1"))
    path = place.home.root / "labels" / "human.jsonl"
    write_jsonl(path, [{"event_id": f"{device}-e1", "verdict": "right", "example_id": None} for device in ("d1", "d2")])
    assert place.forget("d1") == counts(events=1, verdicts=1)
    assert [row["event_id"] for row in read_jsonl(path)] == ["d2-e1"]


def test_what_a_stopped_collector_had_not_delivered_goes_and_a_running_one_drops_it_itself(
    place: Place, tmp_path: Path
) -> None:
    def arrival(number: int, device: str) -> Arrival:
        return Arrival.of(parse_event(json.dumps(secret(number, device)).encode(), NOW), device_digest(device))

    running = EventInbox(place.home.root / "collector", place.received, 1000, timedelta(days=1))
    running.add([[arrival(1, "d1"), arrival(2, "d2")]], NOW)
    stopped = Place(tmp_path / "stopped")
    shutil.copytree(place.home.root / "collector", stopped.home.root / "collector")

    assert place.forget("d1") == counts(waiting=1)
    running.close()
    (part,) = place.received.parts()
    assert [json.loads(line)["device_id"] for line in place.received.read(part)] == ["d2"]

    assert stopped.forget("d1") == counts(journal=1)
    for root in (place.home.root, stopped.home.root):
        assert holding(root, "d1 said") == []
    started = EventInbox(stopped.home.root / "collector", stopped.received, 1000, timedelta(days=1))
    assert started.waiting == 1
    started.close()


@pytest.mark.parametrize("at", ["bury", "received", "quarantine", "log"])
def test_a_run_killed_at_any_place_is_finished_by_the_next(
    place: Place, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketloop.data import forget as forget_module

    put(place.log, *(secret(n, f"d{n % 2}") for n in range(20)), b'{"device_id": "d1", broken')
    post(place.received, *(secret(n, "d1") for n in range(20, 24)))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        targets = {
            "bury": (Received, "add_tombstone"),
            "received": (Received, "remove_device"),
            "quarantine": (forget_module.quarantine, "remove_device"),
            "log": (forget_module, "forget_pages"),
        }
        patch.setattr(*targets[at], killed)
        with pytest.raises(KeyboardInterrupt):
            place.forget("d1")
    assert put(place.log, secret(99, "d1")).quarantined == {"forgotten": 1}, "nothing comes in meanwhile"
    place.forget("d1")
    assert holding(place.home.root, "d1 said", '"d1"') == []
    assert len(place.received.tombstones()) == 1


def test_refused_lines_of_others_keep_their_bytes_and_rows(place: Place) -> None:
    bad = [
        secret(1, "d1") | {"messages": []},
        secret(2, "d2") | {"messages": []},
        b'{"text": "a line of d1 that is cut o',
        b"{broken and nobody's",
        json.dumps(secret(3, "d1") | {"text": "x" * 1_100_000}).encode(),
        json.dumps(secret(3, "d2") | {"text": "x" * 1_100_000}).encode(),
        event(4, "d2", messages=[{"role": "user", "content": "tell d1", "oops": 1}]),
    ]
    put(place.log, *bad)
    assert place.forget("d1")["quarantined"] == 3
    left = b"".join(path.read_bytes() for path in (place.log / "quarantine").iterdir())
    kept = [bad[1], bad[3], bad[5], bad[6]]
    assert all((line if isinstance(line, bytes) else json.dumps(line).encode()) in left for line in kept)
    summary = inspect_log(place.log)
    assert sum(summary.quarantined.values()) == len(kept)
    with open_log(place.log) as connection:
        files = {file for (file,) in connection.execute("SELECT file FROM quarantine")}
    assert files == {path.name for path in (place.log / "quarantine").iterdir()}


def test_an_id_written_with_escapes_is_found(place: Place) -> None:
    raw = json.dumps(secret(1, "dévice-ü")).encode()
    assert b"\\u" in raw
    put(place.log, raw)
    put(place.log, raw.replace(b'"messages"', b'"massages"'))
    assert place.forget("dévice-ü") == counts(events=1, quarantined=1)
    assert holding(place.home.root, "Zanzibar") == []


def test_a_utf16_file_with_a_device_in_it_goes_as_a_whole(place: Place) -> None:
    path = place.home.root.parent / "phone.jsonl"
    path.write_bytes(lines(secret(1, "d1"), secret(2, "d2")).decode().encode("utf-16"))
    from pocketloop.data.event_log import import_file

    import_file(path, place.log, NOW)
    assert place.forget("d1")["quarantined"] == 1
    assert list((place.log / "quarantine").iterdir()) == []


def test_releases_with_its_records_are_listed_and_not_trained_on_again(place: Place) -> None:
    put(place.log, secret(1, "d1"), secret(2, "d2"))
    traces = traces_of(place.home, "d1")

    def release(digest: str, **row: object) -> None:
        folder = place.home.releases / digest / "splits" / "pairs"
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text(json.dumps(row, separators=(",", ":")) + "\n")
        (folder.parent.parent / "release.json").write_text(json.dumps({"adapter": f"of-{digest}"}))

    release("by-group", group=traces.group, event_ids=[])
    release("by-event", group="g-other", event_ids=["d2-e9", "d1-e1"])
    release("neither", group="g-other", event_ids=["d1-e11"])
    found = touched_releases(place.home, traces)
    assert [(r.digest, r.adapter, r.records) for r in found] == [
        ("by-event", "of-by-event", 1),
        ("by-group", "of-by-group", 1),
    ]
    place.forget("d1")
    assert [bool(withdrawn(place.home, name)) for name in ("by-group", "by-event", "neither")] == [True, True, False]
    assert withdrawn(Home(place.home.root / "elsewhere"), "by-group") is None


IDS = st.text('a]"\\,é:[', min_size=1, max_size=6) | st.text(min_size=1, max_size=6)


@given(
    mine=st.sets(IDS, max_size=4),
    row=st.lists(IDS, max_size=4),
    one=st.booleans(),
)
def test_an_event_id_is_found_in_a_line_of_json_whatever_it_is_made_of(
    mine: set[str], row: list[str], one: bool
) -> None:
    from pocketloop.contracts.files import canonical_json

    traces = Traces("\x00device\x00", "0" * 64, "g-0123456789abcdef", frozenset(mine))
    value = {"event_id": row[0]} if one and row else {"event_ids": row}
    shown = set(row[:1] if one and row else row)
    line = canonical_json({"a": "b", **value, "z": 1}).encode("utf-8", "surrogatepass")
    assert traces.in_lines([line]) == (1 if shown & mine else 0)


def test_landing_parts_are_written_anew_and_not_taken_in_twice(place: Place) -> None:
    post(place.received, secret(1, "d1"), secret(2, "d2"))
    pull(place.received, place.log, NOW)
    place.forget("d1")
    report = pull(place.received, place.log, NOW)
    assert (report.new, report.duplicates, report.quarantined) == (0, 1, {})
    (part,) = place.received.parts()
    content = gzip.decompress((place.home.received / part).read_bytes())
    assert json.loads(content)["device_id"] == "d2"
