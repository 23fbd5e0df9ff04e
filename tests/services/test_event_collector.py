"""Posting events over real sockets: what is answered, what is kept, and what hostile posts cannot do."""

import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from posting import NOW, Posts, collecting, event, lines_of, stored
from until import PATIENCE, ticking, until

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.files import canonical_json
from pocketloop.contracts.home import Home
from pocketloop.data.received import device_digest
from pocketloop.services.app_tokens import AppTokens


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posts]:
    limits = {"line_bytes": 2000, "batch_lines": 50, "body_bytes": 20_000, "decompressed_bytes": 60_000}
    with collecting(tmp_path_factory.mktemp("events"), limits=limits) as posts:
        yield posts


@pytest.mark.parametrize("zipped", [False, True])
def test_events_reach_the_store_by_day_of_arrival(tmp_path: Path, zipped: bool) -> None:
    events = [event(1, ts="2026-11-01T00:00:00Z"), event(2, more={"b": 1, "a": "ü"}), event(3)]
    with collecting(tmp_path) as posts:
        answer = posts.events(*events, zipped=zipped)
        assert answer == {
            "accepted": 3,
            "duplicates": 0,
            "rejected": 0,
            "lines": [{"line": number, "status": "accepted"} for number in (1, 2, 3)],
        }
        assert posts.store.parts() == []  # on disk, in the journal
        assert posts.inbox.flush() == 3
        (part,) = posts.store.parts()
        assert part.startswith("day=2026-11-21/part-20261121T120000.000000Z-")
        assert list(posts.store.read(part)) == [canonical_json(one).encode() for one in events]
        posts.events(event(4))
    assert len(posts.store.parts()) == 2  # written as it stopped
    assert not list(tmp_path.glob("collector/journal/*.jsonl"))


def test_each_line_gets_its_own_answer_and_blank_ones_none(posts: Posts) -> None:
    answer = posts.events(event(1), b"", b"{", event(1), b" \r", event(1, locale="de"), event(2, consent={}), event(3))
    assert [(line["line"], line.get("reason", line["status"])) for line in answer["lines"]] == [
        (1, "accepted"),
        (3, "malformed JSON"),
        (4, "duplicate"),
        (6, "conflict"),
        (7, "consent"),
        (8, "accepted"),
    ]
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2, 1, 3)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[]", "not an object"),
        (b"\xff", "encoding"),
        (b'{"a": NaN}', "malformed JSON"),
        (b'{"a": 1e999}', "malformed JSON"),
        (b"[" * 1500, "malformed JSON"),
        (b"1" * 1900, "not an object"),
        (b"x" * 2001, "too long"),
        (event(50, ts="2026-11-23T00:00:00Z"), "future"),
        (event(50, ts="yesterday"), "schema"),
        (event(50, messages=[]), "schema"),
        (event(50, device_id=""), "schema"),
        (event(50, consent={"training": "yes", "policy": "p"}), "consent"),
        (event(50, locale="\ud800"), "encoding"),
        (event(50, messages=[{"role": "user", "content": "my secret", "secret key": 1}]), "schema"),
    ],
)
def test_a_line_that_is_no_event_is_rejected_without_quoting_it(posts: Posts, line: Any, reason: str) -> None:
    answer = posts.events(line, event(10))
    assert answer["lines"][0]["reason"] == reason
    assert answer["lines"][1]["status"] in ("accepted", "duplicate")
    assert "secret" not in json.dumps(answer)


def test_an_event_counts_once_however_it_is_written_and_whoever_posts_it(tmp_path: Path) -> None:
    with collecting(tmp_path) as posts, ThreadPoolExecutor(8) as pool:
        reordered = dict(reversed(event(1).items()))
        assert posts.statuses(event(1), reordered) == ["accepted", "duplicate"]
        answers = list(pool.map(lambda i: posts.events(event(i % 10), event(1)), range(80)))
        posts.inbox.flush()
        assert posts.statuses(event(1), event(1, locale="de")) == ["duplicate", "conflict"]
    assert sum(answer["accepted"] for answer in answers) == 9
    assert sorted(one["event_id"] for one in stored(posts.store)) == [f"e{i}" for i in range(10)]


def test_duplicates_are_known_after_a_restart(tmp_path: Path) -> None:
    with collecting(tmp_path) as posts:
        posts.events(event(1), event(2))
    with collecting(tmp_path) as posts:
        assert posts.statuses(event(1), event(2, locale="de"), event(3)) == ["duplicate", "conflict", "accepted"]
    assert len(stored(posts.store)) == 3


def test_only_an_app_with_a_token_may_post(tmp_path: Path) -> None:
    with collecting(tmp_path) as posts:
        body = lines_of([event(1)])
        for wrong in ("", "Bearer", "Bearer nonsense", f"Basic {posts.token}", f"Bearer {posts.token}x", "Bearer \xff"):
            answer = posts.post(body, Authorization=wrong)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert posts.post(body, Authorization=f"bearer {posts.token}").status_code == 200
        AppTokens.of(Home(tmp_path)).revoke("app0")  # by another process, as far as the collector knows
        assert posts.post(body).status_code == 401
        assert requests.post(f"{posts.address}/telemetry", json=[], timeout=60).status_code == 202


def test_tokens_are_kept_as_digests_that_only_the_owner_reads(tmp_path: Path) -> None:
    tokens = AppTokens.of(Home(tmp_path))
    secrets = {name: tokens.add(name) for name in ("android", "ios")}
    assert secrets["ios"] not in tokens.path.read_text()
    assert tokens.path.stat().st_mode & 0o777 == 0o600 and tokens.path.parent.stat().st_mode & 0o777 == 0o700
    assert {name: AppTokens(tokens.path).app_of(secret) for name, secret in secrets.items()} == {
        "android": "android",
        "ios": "ios",
    }
    for wrong, message in (("ios", "has a token"), ("a b", "letters, digits"), ("", "letters, digits")):
        with pytest.raises(ConfigError, match=message):
            tokens.add(wrong)
    tokens.revoke("ios")
    assert tokens.app_of(secrets["ios"]) is None and tokens.app_of(secrets["android"]) == "android"
    with pytest.raises(ConfigError, match="there are: android"):
        tokens.revoke("ios")
    tokens.path.write_text("{}")
    with pytest.raises(ConfigError, match="not a list of app tokens"):
        AppTokens(tokens.path).tokens()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "application/json"}, 415),
        ({"Content_Type": ""}, 415),
        ({"Content_Type": "application/x-ndjson; charset=utf-8"}, 200),
        ({"Content_Type": "application/jsonl"}, 200),
        ({"Content_Encoding": "br"}, 415),
        ({"Content_Encoding": "gzip"}, 400),  # it says so, but is not
        ({"Content_Encoding": "identity"}, 200),
    ],
)
def test_types_and_encodings_are_told_apart(posts: Posts, headers: dict[str, str], status: int) -> None:
    assert posts.post(lines_of([event(20)]), **headers).status_code == status


def test_damaged_compression_keeps_nothing(posts: Posts) -> None:
    whole = gzip.compress(lines_of(event(i, device_id=f"x{i}") for i in range(30, 40)))
    broken = (whole[:-9], whole[:5], b"", whole[:20] + b"\0\0\0\0" + whole[24:], whole + b"x")
    for body in broken:
        answer = posts.post(body, Content_Encoding="gzip")
        assert answer.status_code == 400 and "gzip" in answer.json()["detail"]
    assert posts.post(whole + gzip.compress(b"\n"), Content_Encoding="gzip").json()["accepted"] == 10


def test_limits_of_a_post_are_413_and_nothing_of_it_is_kept(posts: Posts) -> None:
    many = lines_of(event(i) for i in range(60, 111))
    for body, headers in (
        (gzip.compress(many), {"Content_Encoding": "gzip"}),  # 51 lines
        (b"\n" * 51, {}),
        (b" " * 20_001, {}),
        (gzip.compress(b" " * 60_001), {"Content_Encoding": "gzip"}),
        (gzip.compress(b"") * 101, {"Content_Encoding": "gzip"}),
    ):
        answer = posts.post(body, **headers)
        assert answer.status_code == 413 and "smaller" in answer.json()["detail"]
    assert posts.statuses(event(60)) == ["accepted"]


def test_a_gzip_bomb_is_stopped_while_it_streams(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MB in 16 kB, of which not more than the allowed bytes are ever unpacked."""
    unpacked: list[int] = []
    make = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._real = make(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            piece = self._real.decompress(data, most)
            unpacked.append(len(piece))
            return piece

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    monkeypatch.setattr("pocketloop.services.bodies.zlib.decompressobj", Counting)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(16)) + packer.flush()

    def slowly() -> Iterator[bytes]:  # without a length that would give it away
        for at in range(0, len(bomb), 1000):
            yield bomb[at : at + 1000]

    headers = {"Authorization": f"Bearer {posts.token}", "Content-Type": "application/x-ndjson"}
    with suppress(requests.RequestException):  # the answer may come while the client is still sending
        headers |= {"Content-Encoding": "gzip"}
        answer = requests.post(f"{posts.address}/v1/events", data=slowly(), headers=headers, timeout=60)
        assert answer.status_code == 413
    assert sum(unpacked) == 60_001
    assert posts.events(event(21))["rejected"] == 0


def test_too_much_that_waits_is_429_until_it_is_written(tmp_path: Path) -> None:
    line = len(canonical_json(event(100)).encode())
    limits = {"waiting_bytes": 6 * line, "retry_after_s": 7}
    with collecting(tmp_path, limits=limits) as posts:
        posts.events(*(event(i) for i in range(100, 104)))
        answer = posts.post(lines_of(event(i) for i in range(104, 107)))
        assert answer.status_code == 429 and answer.headers["retry-after"] == "7"
        assert posts.inbox.waiting == 4
        posts.inbox.flush()
        assert posts.statuses(event(104), event(105)) == ["accepted", "accepted"]
    assert len(stored(posts.store)) == 6


def test_a_post_under_way_counts_as_waiting(tmp_path: Path) -> None:
    """Bytes in hand are bounded with the journal, so that many large posts at once cannot fill the memory."""
    with collecting(tmp_path, limits={"waiting_bytes": 3000}) as posts:
        begun, go_on = threading.Event(), threading.Event()

        def slowly() -> Iterator[bytes]:
            yield b" " * 2500
            begun.set()
            go_on.wait(PATIENCE)
            yield b"\n" + lines_of([event(1)])

        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(posts.post, slowly())  # type: ignore[arg-type]
            assert begun.wait(PATIENCE)
            other = Posts(posts.address, posts.token, posts.app, posts.store)
            while (refused := other.post(b" " * 600)).status_code == 200:
                pass
            assert refused.status_code == 429
            go_on.set()
            assert slow.result().json()["accepted"] == 1
        assert other.statuses(event(2)) == ["accepted"]


def test_a_forgotten_device_is_refused_and_what_waits_of_it_is_dropped(tmp_path: Path) -> None:
    with collecting(tmp_path) as posts:
        assert posts.statuses(event(1, device_id="gone"), event(2, device_id="stays")) == ["accepted", "accepted"]
        posts.store.add_tombstone(device_digest("gone"), NOW)
        posts.inbox.refresh()
        assert posts.statuses(event(3, device_id="gone"), event(4, device_id="stays")) == ["forgotten", "accepted"]
        assert posts.inbox.flush() == 2
    assert [one["device_id"] for one in stored(posts.store)] == ["stays", "stays"]
    assert not [path for path in (tmp_path / "collector").rglob("*") if path.is_file() and b"gone" in path.read_bytes()]


def test_events_are_written_by_number_and_by_age_and_tombstones_are_noticed(tmp_path: Path) -> None:
    clock, moved = ticking(NOW), [timedelta()]
    with collecting(tmp_path, flush_events=3, flush_seconds=60, clock=lambda: clock() + moved[0]) as posts:
        posts.events(event(1))
        assert posts.store.parts() == []
        moved[0] = timedelta(seconds=61)
        until(lambda: posts.inbox.waiting == 0)
        posts.store.add_tombstone(device_digest("gone"), NOW)
        posts.events(*(event(i) for i in range(2, 6)))
        until(lambda: posts.inbox.waiting == 0)
        assert len(stored(posts.store)) == 5
        until(lambda: posts.statuses(event(9, device_id="gone")) == ["forgotten"])


def test_health_and_metrics_tell_what_happened_and_nothing_of_the_events(tmp_path: Path) -> None:
    with collecting(tmp_path) as posts:
        posts.events(event(1), event(1), b"{", event(2))
        posts.post(b"", Authorization="none")
        health = requests.get(f"{posts.address}/healthz", timeout=60).json()
        page = requests.get(f"{posts.address}/metrics", timeout=60)
        size = posts.inbox.waiting_bytes
    assert health == {"status": "ok", "waiting": 0, "events": {"waiting": 2, "bytes": size, "store": "ok"}}
    assert page.headers["content-type"].startswith("text/plain")
    for line in (
        'pocketloop_collector_events_total{app="app0",outcome="accepted"} 2.0',
        'pocketloop_collector_events_total{app="app0",outcome="duplicate"} 1.0',
        'pocketloop_collector_rejected_events_total{reason="malformed JSON"} 1.0',
        'pocketloop_collector_posts_total{route="/v1/events",status="200"} 1.0',
        'pocketloop_collector_posts_total{route="/v1/events",status="401"} 1.0',
        'pocketloop_collector_post_seconds_count{route="/v1/events"} 2.0',
        "pocketloop_collector_waiting_events 2.0",
        "pocketloop_collector_store_behind 0.0",
    ):
        assert f"\n{line}\n" in page.text
    assert "d1" not in page.text and "functions" not in page.text


def test_a_full_disk_is_a_503_and_the_post_works_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with collecting(tmp_path) as posts:
        posts.events(event(1))
        with monkeypatch.context() as broken:
            broken.setattr("os.fsync", full)
            answer = posts.post(lines_of([event(2)]))
            assert answer.status_code == 503 and answer.headers["retry-after"]
            assert posts.post(lines_of([event(2)])).status_code == 503
        assert posts.statuses(event(1), event(2)) == ["duplicate", "accepted"]
    assert len(stored(posts.store)) == 2
