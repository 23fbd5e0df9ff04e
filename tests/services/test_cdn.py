"""The development CDN over real sockets: what devices and caches rely on."""

import http.client
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from free_port import free_port
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.errors import DeliveryError
from pocketloop.services.cdn import create_app, serve
from pocketloop.services.running import running

SMALL = bytes(range(256)) * 8
LARGE = os.urandom(1 << 20)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a publisher leaves it, with things in and around it that nobody may fetch."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "key.pem").write_text("secret")
    folder = outside / "cdn"
    for name, data in {
        "metadata/timestamp.json": b'{"version": 1}',
        "metadata/1.root.json": b"{}",
        "metadata/.2.root.json.abc.part": b"half",
        "targets/stable/small.gguf": SMALL,
        "targets/stable/large.gguf": LARGE,
        "targets/empty.bin": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "escape.pem").symlink_to(outside / "key.pem")
    (folder / "up").symlink_to(outside)
    (folder / "alias.gguf").symlink_to(folder / "targets" / "stable" / "small.gguf")
    (outside / "cdn-sibling").mkdir()
    (outside / "cdn-sibling" / "x.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with running(create_app(root)) as url:
        yield url


def raw(address: str, target: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """A request whose target goes out exactly as written: clients tidy up `..` before sending."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("name", "data"), [("small", SMALL), ("large", LARGE)])
def test_files_are_served_whole_with_what_a_cache_needs(address: str, name: str, data: bytes) -> None:
    answer = requests.get(f"{address}/targets/stable/{name}.gguf", timeout=60)
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["etag"] and answer.headers["last-modified"]
    head = requests.head(f"{address}/targets/stable/{name}.gguf", timeout=60)
    assert head.content == b"" and head.headers["content-length"] == str(len(data))
    assert head.headers["etag"] == answer.headers["etag"]


def test_only_the_timestamp_is_asked_for_again(address: str) -> None:
    assert requests.get(f"{address}/metadata/timestamp.json", timeout=60).headers["cache-control"] == "no-cache"
    assert "immutable" in requests.get(f"{address}/metadata/1.root.json", timeout=60).headers["cache-control"]


def test_what_is_absent_is_a_404_that_no_cache_remembers(address: str) -> None:
    answer = requests.get(f"{address}/metadata/2.root.json", timeout=60)
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["small", "large"])
@pytest.mark.parametrize(
    ("asked", "cut"),
    [("0-0", slice(0, 1)), ("100-", slice(100, None)), ("-7", slice(-7, None)), ("5-9999999", slice(5, None))],
)
def test_a_cut_download_goes_on_where_it_stopped(address: str, name: str, asked: str, cut: slice) -> None:
    data = {"small": SMALL, "large": LARGE}[name]
    url = f"{address}/targets/stable/{name}.gguf"
    tag = requests.head(url, timeout=60).headers["etag"]
    answer = requests.get(url, headers={"Range": f"bytes={asked}", "If-Range": tag}, timeout=60)
    assert (answer.status_code, answer.content) == (206, data[cut])
    start = range(len(data))[cut].start
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(data[cut]) - 1}/{len(data)}"
    assert answer.headers["etag"] == tag


def test_a_range_of_a_file_that_changed_gives_the_whole_file(address: str) -> None:
    headers = {"Range": "bytes=5-9", "If-Range": '"another"'}
    answer = requests.get(f"{address}/targets/stable/small.gguf", headers=headers, timeout=60)
    assert (answer.status_code, answer.content) == (200, SMALL)


@pytest.mark.parametrize("name", ["targets/stable/small.gguf", "targets/empty.bin"])
def test_a_range_behind_the_end_is_a_416(address: str, name: str) -> None:
    answer = requests.get(f"{address}/{name}", headers={"Range": "bytes=5000-"}, timeout=60)
    assert answer.status_code == 416
    assert answer.headers["content-range"].startswith("bytes */")


def test_an_unchanged_file_is_not_sent_again(address: str) -> None:
    url = f"{address}/metadata/timestamp.json"
    first = requests.get(url, timeout=60)
    for headers in (
        {"If-None-Match": first.headers["etag"]},
        {"If-None-Match": f'"x", W/{first.headers["etag"]}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": first.headers["last-modified"]},
    ):
        answer = requests.get(url, headers=headers, timeout=60)
        assert (answer.status_code, answer.content) == (304, b""), headers
        assert answer.headers["cache-control"] == "no-cache" and answer.headers["etag"] == first.headers["etag"]
    stale = {"If-None-Match": '"old"', "If-Modified-Since": first.headers["last-modified"]}  # the tag counts
    assert requests.get(url, headers=stale, timeout=60).status_code == 200
    assert requests.get(url, headers={"If-Modified-Since": "garbage"}, timeout=60).status_code == 200


def test_a_replaced_file_has_another_tag(tmp_path: Path) -> None:
    with running(create_app(tmp_path)) as address:
        tags = set()
        for version in range(5):  # same size, and within the resolution of a Last-Modified date
            (tmp_path / "new").write_text(str(version))
            (tmp_path / "new").replace(tmp_path / "timestamp.json")
            answer = requests.get(f"{address}/timestamp.json", timeout=60)
            assert answer.text == str(version)
            tags.add(answer.headers["etag"])
    assert len(tags) == 5


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/targets",
        "/targets/",
        "/targets/stable/small.gguf/",
        "//targets/empty.bin",
        "/../key.pem",
        "/targets/../../key.pem",
        "/%2e%2e/key.pem",
        "/targets/%2e%2e/%2e%2e/key.pem",
        "/targets%2f..%2f..%2fkey.pem",
        "/../cdn-sibling/x.json",
        "/..%5ckey.pem",
        "/targets/./empty.bin",
        "/escape.pem",
        "/up/key.pem",
        "/up/cdn/targets/../../key.pem",
        "/metadata/.2.root.json.abc.part",
        "/%00",
        "/metadata/timestamp.json%00.gguf",
        "/" + "a" * 5000,
        "/%ff%fe",
        "http://elsewhere/../key.pem",
    ],
)
def test_nothing_but_published_files_exists(address: str, target: str) -> None:
    status, body = raw(address, target)
    assert status in (400, 404)
    assert b"secret" not in body and b"half" not in body


@given(st.lists(st.sampled_from(["..", ".", "", "up", "targets", "key.pem", "cdn", "%2e%2e", "%2f", "\\", "~"])))
def test_no_path_leads_out(root: Path, address: str, parts: list[str]) -> None:
    status, body = raw(address, "/" + "/".join(parts))
    assert status in (400, 404) and b"secret" not in body


def test_a_link_within_the_folder_is_a_file_like_any_other(address: str) -> None:
    assert requests.get(f"{address}/alias.gguf", timeout=60).content == SMALL


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(address: str, method: str) -> None:
    answer = requests.request(method, f"{address}/metadata/timestamp.json", timeout=60)
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, HEAD"


def test_a_file_that_is_replaced_all_the_time_is_never_half_of_each(tmp_path: Path) -> None:
    versions = [bytes([65 + i]) * (1000 + 500 * i) for i in range(4)]
    (tmp_path / "timestamp.json").write_bytes(versions[0])
    done = threading.Event()

    def replace() -> None:
        turn = 0
        while not done.wait(0.001):
            turn += 1
            (tmp_path / "new").write_bytes(versions[turn % 4])
            (tmp_path / "new").replace(tmp_path / "timestamp.json")

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        with running(create_app(tmp_path)) as address, requests.Session() as session:
            seen = [session.get(f"{address}/timestamp.json", timeout=60).content for _ in range(300)]
    finally:
        done.set()
        writer.join()
    assert set(seen) <= set(versions)


def test_many_devices_at_once_are_all_served(address: str) -> None:
    def device(_: int) -> set[int]:
        with requests.Session() as session:
            names = ("metadata/timestamp.json", "metadata/1.root.json", "targets/stable/large.gguf")
            return {session.get(f"{address}/{name}", timeout=60).status_code for name in names}

    with ThreadPoolExecutor(20) as pool:
        assert set().union(*pool.map(device, range(100))) == {200}


def test_a_server_stops_with_its_block_and_frees_its_port(root: Path) -> None:
    port = free_port()
    with running(create_app(root), port=port) as address, requests.Session() as session:
        assert session.get(f"{address}/metadata/1.root.json", timeout=60).ok
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/metadata/1.root.json", timeout=60)
    with running(create_app(root), port=port) as again:
        assert again == address and requests.get(f"{again}/metadata/1.root.json", timeout=60).ok


def test_an_app_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    async def broken(scope: dict[str, str], receive: object, send: object) -> None:
        if scope["type"] == "lifespan":
            await receive()  # type: ignore[operator]
            await send({"type": "lifespan.startup.failed", "message": "no disk"})  # type: ignore[operator]

    with pytest.raises(RuntimeError, match="did not start"), running(broken):
        raise AssertionError("not reached")


def test_serving_a_folder_that_is_absent_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="cdn init"):
        serve(tmp_path / "absent")
