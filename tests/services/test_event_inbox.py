"""The journal and the index behind the collector: whatever is killed or fails in between, each event is kept once."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
import requests
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from posting import NOW, collecting, event, stored
from until import ticking, until

from pocketloop.contracts.errors import DataError
from pocketloop.data.parsing import parse_event
from pocketloop.data.received import Received, device_digest
from pocketloop.services.event_inbox import Arrival, EventInbox, Outcome

MONTH = timedelta(days=30)


def arrival(number: int, text: str = "", device: str = "d") -> Arrival:
    parsed = parse_event(json.dumps(event(number, device_id=device, locale=text)).encode(), NOW)
    return Arrival.of(parsed, device_digest(device))


def opened(folder: Path, store: Received | None = None, flush_events: int = 1000) -> EventInbox:
    return EventInbox(folder / "inbox", store or Received(str(folder / "store")), flush_events, MONTH)


def ids(folder: Path) -> list[str]:
    return [one["event_id"] for one in stored(Received(str(folder / "store")))]


def killed(folder: Path, turn: str) -> Path:
    """What a process that is killed now leaves: a copy of its files, which no one has open."""
    copy = folder.with_name(f"{folder.name}-{turn}")
    shutil.copytree(folder, copy)
    return copy


def test_what_a_killed_process_acknowledged_is_written_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    first = opened(folder)
    assert first.add([[arrival(1)], [arrival(2), arrival(1)]], NOW) == [["accepted"], ["accepted", "duplicate"]]
    left = killed(folder, "later")
    second = opened(left)
    assert second.waiting == 2 and second.opened == NOW
    assert second.add([[arrival(2), arrival(1, "de"), arrival(3)]], NOW) == [["duplicate", "conflict", "accepted"]]
    assert second.flush() == 3 and second.waiting == second.waiting_bytes == 0
    assert ids(left) == ["e1", "e2", "e3"]


@pytest.mark.parametrize("moment", ["part", "index"])
def test_a_kill_during_a_flush_writes_the_same_part_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = tmp_path / "a"
    inbox = opened(folder)
    inbox.add([[arrival(1), arrival(2)]], NOW)
    index = inbox._index.add

    def dies(*given: object) -> None:
        if moment == "index":
            index(*given)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(inbox._index, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        inbox.flush()
    left = killed(folder, "later")
    assert ids(left) == ["e1", "e2"]
    again = opened(left)
    assert again.add([[arrival(1), arrival(2, "de")]], NOW) == [["duplicate", "conflict"]]
    again.close()
    assert ids(left) == ["e1", "e2"]


def test_a_torn_line_was_never_acknowledged_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "inbox" / "journal"
    journal.mkdir(parents=True)
    whole, torn = arrival(1).line, arrival(2).line
    segment = journal / "20261121T110000.000000Z.jsonl"
    segment.write_bytes(whole + torn[:-9])
    inbox = opened(tmp_path)
    assert inbox.waiting == 1
    inbox.close()
    assert ids(tmp_path) == ["e1"]
    for broken in (b"\0" * 80, b"[]", whole[64:], device_digest("other").encode() + whole[64:-1]):
        segment.write_bytes(whole + broken + b"\n")
        with pytest.raises(DataError, match=r"000000Z\.jsonl:2: not a line"):
            opened(_with_journal(tmp_path, segment))


def _with_journal(folder: Path, segment: Path) -> Path:
    """Another folder with the same journal: an inbox that failed to open still holds its lock."""
    place = folder / f"copy{len(list(folder.glob('copy*')))}"
    (place / "inbox" / "journal").mkdir(parents=True)
    shutil.copy(segment, place / "inbox" / "journal")
    return place


def test_a_part_holds_the_events_of_one_day_and_not_too_many(tmp_path: Path) -> None:
    inbox = opened(tmp_path, flush_events=3)
    late = datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)
    inbox.add([[arrival(1)]], late)
    inbox.add([[arrival(i) for i in range(2, 6)]], late + timedelta(seconds=2))
    inbox.add([[arrival(6)]], late + timedelta(seconds=3))
    inbox.close()
    store = Received(str(tmp_path / "store"))
    assert [(part[:14], len(list(store.read(part)))) for part in store.parts()] == [
        ("day=2026-11-21", 1),
        ("day=2026-11-22", 4),
        ("day=2026-11-22", 1),
    ]


def test_a_device_that_is_forgotten_while_its_part_is_written_is_taken_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Received(str(tmp_path / "store"))
    inbox = opened(tmp_path, store)
    inbox.add([[arrival(1, device="gone"), arrival(2, device="stays")]], NOW)
    write = store.write

    def meanwhile(*given: object, **more: object) -> str:
        name = write(*given, **more)  # type: ignore[arg-type]
        store.add_tombstone(device_digest("gone"), NOW)
        return name

    monkeypatch.setattr(store, "write", meanwhile)
    assert inbox.flush() == 1
    assert ids(tmp_path) == ["e2"]


def test_a_store_that_is_down_loses_and_blocks_nothing(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bucket = boto3.client("s3"), s3.removeprefix("s3://").partition("/")[0]
    with collecting(tmp_path, store=s3, flush_seconds=0.05, clock=ticking(NOW)) as posts:
        client.delete_bucket(Bucket=bucket)
        assert posts.statuses(event(1), event(2)) == ["accepted", "accepted"]
        until(lambda: requests.get(f"{posts.address}/healthz", timeout=60).json()["events"]["store"] == "behind")
        assert posts.statuses(event(1), event(3)) == ["duplicate", "accepted"]
        assert posts.inbox.waiting == 3
        client.create_bucket(Bucket=bucket)
        until(lambda: posts.inbox.waiting == 0)
        health = requests.get(f"{posts.address}/healthz", timeout=60).json()
        assert health["events"]["store"] == "ok"
        assert sorted(one["event_id"] for one in stored(posts.store)) == ["e1", "e2", "e3"]
        posts.events(event(4))
    with collecting(tmp_path, store=s3) as posts:
        assert posts.statuses(*(event(i) for i in range(1, 6))) == [*["duplicate"] * 4, "accepted"]


def test_a_collector_stops_while_the_store_is_down_and_the_next_goes_on(tmp_path: Path, s3: str) -> None:
    with collecting(tmp_path, store="s3://no-such-bucket/x") as posts:
        assert posts.statuses(event(1)) == ["accepted"]
    with collecting(tmp_path, store=s3) as posts:
        assert posts.inbox.waiting == 1
        assert posts.statuses(event(1)) == ["duplicate"]
    assert [one["event_id"] for one in stored(Received(s3))] == ["e1"]


def test_ids_are_dropped_when_they_are_older_than_they_need_to_be(tmp_path: Path) -> None:
    inbox = opened(tmp_path)
    for days, number in ((0, 1), (10, 2), (31, 3)):
        inbox.add([[arrival(number)]], NOW + timedelta(days=days))
        inbox.flush()
    later = NOW + timedelta(days=31)
    assert inbox.add([[arrival(1), arrival(2), arrival(3)]], later) == [["accepted", "duplicate", "duplicate"]]
    inbox.close()
    found = sqlite3.connect(tmp_path / "inbox" / "known.sqlite").execute("SELECT count(*) FROM known").fetchone()
    assert found == (3,)


def test_two_collectors_do_not_share_a_folder(tmp_path: Path) -> None:
    inbox = opened(tmp_path)
    with pytest.raises(DataError, match="another collector"):
        opened(tmp_path)
    inbox.close()
    opened(tmp_path).close()


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "known.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match=r"known\.sqlite: not an index"):
        opened(tmp_path)


class Inboxes(RuleBasedStateMachine):
    """Posts, flushes, kills and forgotten devices in any order, beside a model of what must be known and stored."""

    folders: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.folder = next(self.folders)
        self.inbox = opened(self.folder, flush_events=4)
        self.known: dict[int, tuple[str, ...]] = {}
        self.forgotten: set[str] = set()
        self.turn = 0

    @rule(
        posts=st.lists(
            st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.sampled_from("xyz"))), max_size=3
        )
    )
    def post(self, posts: list[list[tuple[int, str, str]]]) -> None:
        wanted: list[list[Outcome]] = []
        for one in posts:
            outcomes: list[Outcome] = []
            for number, *content in one:
                if number not in self.known:
                    self.known[number] = tuple(content)
                    outcomes.append("accepted")
                else:
                    outcomes.append("duplicate" if self.known[number] == tuple(content) else "conflict")
            wanted.append(outcomes)
        assert self.inbox.add([[arrival(*item) for item in one] for one in posts], NOW) == wanted

    @rule()
    def flush(self) -> None:
        self.inbox.flush()
        assert self.inbox.waiting == self.inbox.waiting_bytes == 0

    @rule()
    def kill(self) -> None:
        self.turn += 1
        left = killed(self.folder, str(self.turn))
        self.inbox = opened(left, flush_events=4)
        self.folder = left

    @precondition(lambda self: len(self.forgotten) < 2)
    @rule(device=st.sampled_from("xyz"))
    def forget(self, device: str) -> None:
        store = Received(str(self.folder / "store"))
        store.add_tombstone(device_digest(device), NOW)
        store.remove_device(device)
        self.forgotten.add(device)

    @invariant()
    def every_event_is_stored_or_waits_and_no_event_is_stored_twice(self) -> None:
        found = ids(self.folder)
        assert len(found) == len(set(found))
        assert self.inbox.waiting + len(found) >= sum(device not in self.forgotten for _, device in self.known.values())

    def teardown(self) -> None:
        self.inbox.close()
        kept = {f"e{number}" for number, (_, device) in self.known.items() if device not in self.forgotten}
        assert sorted(ids(self.folder)) == sorted(kept)


def test_no_order_of_posts_flushes_kills_and_deletions_loses_or_doubles_an_event(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    Inboxes.folders = iter(lambda: tmp_path_factory.mktemp("machine") / "state", None)
    run_state_machine_as_test(Inboxes, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
