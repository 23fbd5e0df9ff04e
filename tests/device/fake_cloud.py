"""A real OpenAI-compatible server on the loopback that can be made to fail."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from pocketloop.device.cloud import CloudConfig

HELLO = [{"role": "user", "content": "hello"}]
WORDS = ["The ", "cloud ", "says ", "hello."]


def chunk(content: str | None, finish: str | None = None) -> bytes:
    """A piece of a streamed completion as OpenAI's API frames it."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(body)}\n\n".encode()


WHOLE = [*[chunk(word) for word in WORDS], chunk(None, "stop"), b"data: [DONE]\n\n"]


@dataclass
class FakeCloud:
    """An endpoint and what it was asked."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    respond: Callable[[Request], Response] = lambda _: streamed(WHOLE)


def streamed(parts: list[bytes | float], status: int = 200) -> Response:
    """Send parts one after another; a number waits for so many seconds."""

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            if isinstance(part, bytes):
                yield part
            else:
                await anyio.sleep(part)

    return StreamingResponse(body(), status, media_type="text/event-stream")


def config_of(cloud: FakeCloud, **changes: Any) -> CloudConfig:
    return CloudConfig(**({"base_url": cloud.url, "model": "large", "connect_s": 60, "timeout_s": 60} | changes))


def error_of(status: int) -> Callable[[Request], Response]:
    return lambda _: JSONResponse({"error": {"message": "user said: hello"}}, status)
