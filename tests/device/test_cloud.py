"""The cloud behind the gateway: its answers come piece by piece, and every fault is one error in time."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_cloud import HELLO, WORDS, FakeCloud, chunk, config_of, error_of, streamed
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pocketloop.contracts.errors import ConfigError
from pocketloop.device.cloud import Cloud, CloudConfig, CloudFault


def test_an_answer_comes_piece_by_piece(cloud: FakeCloud, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret\n")
    shown: list[str] = []
    answer = Cloud(config_of(cloud, api_key_file=key)).answer(HELLO, shown.append)
    assert (answer, shown) == ("The cloud says hello.", WORDS)
    assert cloud.keys == ["Bearer sk-secret"]
    (asked,) = cloud.asked
    assert (asked["model"], asked["messages"], asked["stream"]) == ("large", HELLO, True)


@pytest.mark.parametrize(
    ("respond", "changes", "problem"),
    [
        (error_of(500), {}, "answered 500"),
        (error_of(429), {}, "answered 429"),
        (error_of(401), {}, "answered 401"),
        (lambda _: streamed([600.0]), {"timeout_s": 0.2}, "no answer"),
        (lambda _: streamed([chunk("half"), 600.0]), {"timeout_s": 0.2}, "no answer"),
        (lambda _: streamed([chunk("half")]), {}, "stopped in the middle"),
        (lambda _: streamed([chunk("half"), b"data: [DONE]\n\n"]), {}, "stopped in the middle"),
        (lambda _: streamed([chunk("half"), b'data: {"error": {"message": "overloaded"}}\n\n']), {}, "no answer"),
        (lambda _: streamed([b"data: {broken\n\n"]), {}, "no answer"),
        (lambda _: streamed([b'data: ["odd"]\n\n']), {}, "no answer"),
        (lambda _: streamed([b'data: {"choices": null}\n\n']), {}, "no answer"),
        (lambda _: streamed([chunk(None, "stop")]), {}, "empty answer"),
        (lambda _: streamed([chunk("  \n", "stop")]), {}, "empty answer"),
        (lambda _: PlainTextResponse("<html>log in</html>", media_type="text/html"), {}, "stopped in the middle"),
        (lambda _: streamed([b": still here\n\n", 0.1] * 6000), {"total_s": 0.5}, "longer than 0.5 s"),
        (lambda _: streamed([chunk("la "), 0.05] * 12000), {"total_s": 0.5}, "longer than 0.5 s"),
    ],
)
def test_every_way_to_fail_is_one_error_in_time(
    cloud: FakeCloud, respond: Callable[[Request], Response], changes: dict[str, float], problem: str
) -> None:
    cloud.respond = respond
    started = time.monotonic()
    with pytest.raises(CloudFault, match=problem) as caught:
        Cloud(config_of(cloud, **changes)).answer(HELLO, lambda _: None)
    assert time.monotonic() - started < 300  # the servers above would go on for 600 s
    assert "hello" not in str(caught.value)


def test_a_connection_that_breaks_in_the_middle_is_a_fault(cloud: FakeCloud) -> None:
    """At the socket: more was announced than is sent."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        data = chunk("half")
        connection.sendall(head + f"{len(data):x}\r\n".encode() + data + b"\r\n40\r\nda")
        connection.close()

    thread = threading.Thread(target=once)
    thread.start()
    shown: list[str] = []
    fake = replace(cloud, url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    with pytest.raises(CloudFault, match="no answer"):
        Cloud(config_of(fake)).answer(HELLO, shown.append)
    thread.join()
    listener.close()
    assert shown == ["half"]


def test_no_connection_is_a_fault() -> None:
    nobody = CloudConfig(base_url="http://127.0.0.1:1/v1", model="m")
    with pytest.raises(CloudFault, match=r"the cloud \(127\.0\.0\.1\) gave no answer"):
        Cloud(nobody).answer(HELLO, lambda _: None)


@pytest.mark.parametrize("url", ["http://llm.example.org/v1", "ftp://127.0.0.1/", "llm.example.org", ""])
def test_what_users_say_goes_over_https_only(url: str) -> None:
    with pytest.raises(ValueError, match="https only"):
        CloudConfig(base_url=url, model="m")


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name in ("absent", "empty"):
        with pytest.raises(ConfigError, match=f"api_key_file .*{name}"):
            Cloud(CloudConfig(base_url="https://x.example/v1", model="m", api_key_file=tmp_path / name))
