"""The collector: phones post telemetry reports here; an answer means that they are on disk.

`POST /telemetry` takes one report or an array. 202: all are kept, and a report that was posted before is counted once.
422: the answer lists what was refused by index and field, and everything else is kept; posting the same again would not
help. 413: too much at once, nothing is kept; post smaller arrays. 503: the disk refuses, nothing is kept; post again.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.services.inbox import REPORTS, Inbox

MAX_BYTES = 4 << 20
"""Largest body of a post."""
MAX_REPORTS = 5_000
"""Most reports in one post."""
_log = logging.getLogger(__name__)
_AHEAD = timedelta(days=1)
_BEHIND = timedelta(days=400)


@dataclass
class _Post:
    """What a body holds: reports to keep, and what is refused (index, field, problem)."""

    good: list[TelemetryReport] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)


def create_app(
    folder: Path,
    *,
    flush_reports: int = 20_000,
    flush_seconds: float = 60.0,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Starlette:
    """The collector's app, with its reports in `folder` (see `delivery.telemetry` for the files).

    Reports wait in a journal until there are `flush_reports` of them, or the oldest is `flush_seconds` old, or the app
    stops. `app.state.inbox.flush()` writes them at once.

    Raises:
        DataError: when the app starts, if another collector has the folder.
    """
    collector = _Collector(folder, flush_reports, flush_seconds, clock)
    routes = [
        Route("/telemetry", collector.telemetry, methods=["POST"]),
        Route("/healthz", collector.healthz, methods=["GET"]),
    ]
    app = Starlette(routes=routes, lifespan=collector.lifespan)
    return app


def serve(folder: Path, host: str = "127.0.0.1", port: int = 8090, *, flush_seconds: float = 60.0) -> None:
    """Collect until interrupted; what waits is written before it returns."""
    import uvicorn

    app = create_app(folder, flush_seconds=flush_seconds)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, ws="none")


class _Collector:
    def __init__(self, folder: Path, flush_reports: int, flush_seconds: float, clock: Callable[[], datetime]) -> None:
        self.folder = folder
        self.flush_reports = flush_reports
        self.flush_seconds = flush_seconds
        self.clock = clock
        self.inbox: Inbox
        self._posts: list[tuple[list[TelemetryReport], asyncio.Future[int]]] = []
        self._keeping: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.inbox = app.state.inbox = await asyncio.to_thread(Inbox, self.folder)
        flushing = asyncio.create_task(self._flush_regularly())
        try:
            yield
        finally:
            flushing.cancel()
            with suppress(asyncio.CancelledError):
                await flushing
            await asyncio.to_thread(self.inbox.close)

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": self.inbox.waiting})

    async def telemetry(self, request: Request) -> Response:
        now = self.clock()
        try:
            post = _parse(await _body(request), now)
            new = await self._keep(post.good)
            if post.bad:
                await asyncio.to_thread(self.inbox.quarantine, post.bad, now)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except _TooLarge as error:
            return JSONResponse({"detail": f"{error}; post smaller arrays"}, 413)
        except ValueError as error:
            return JSONResponse({"detail": f"not JSON: {error}"}, 400)
        except OSError as error:
            _log.error("reports cannot be kept: %s", error)
            return JSONResponse({"detail": "cannot keep reports now; post again"}, 503, {"retry-after": "60"})
        answer: dict[str, Any] = {"accepted": new, "duplicates": len(post.good) - new}
        if post.bad:
            shown = [{name: row[name] for name in ("index", "field", "problem")} for row in post.bad]
            return JSONResponse({**answer, "rejected": shown}, 422)
        return JSONResponse(answer, 202)

    async def _keep(self, reports: list[TelemetryReport]) -> int:
        """Hand reports to the next flush to disk, which serves all posts that came meanwhile, and wait for it."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._posts.append((reports, done))
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep_all())
        return await done

    async def _keep_all(self) -> None:
        while self._posts:
            posts, self._posts = self._posts, []
            try:
                counts = await asyncio.to_thread(self.inbox.add, [reports for reports, _ in posts], self.clock())
            except Exception as error:
                for _, done in posts:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), count in zip(posts, counts, strict=True):
                if not done.done():  # its client may have gone away
                    done.set_result(count)

    async def _flush_regularly(self) -> None:
        pause = min(1.0, self.flush_seconds)
        while True:
            opened = self.inbox.opened
            age = (self.clock() - opened).total_seconds() if opened else 0.0
            if self.inbox.waiting >= self.flush_reports or age >= self.flush_seconds:
                try:
                    await asyncio.to_thread(self.inbox.flush)
                except Exception as error:  # a full disk, say: the journal keeps the reports, and the next turn tries
                    _log.error("reports cannot be written as Parquet, the journal keeps them: %s", error)
            await asyncio.sleep(pause)


class _TooLarge(Exception):
    """More than one post may hold."""


async def _body(request: Request) -> bytes:
    """The body; of one that is too large, the rest is not read."""
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdigit() else 0
    chunks: list[bytes] = []
    if size <= MAX_BYTES:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BYTES:
                break
            chunks.append(chunk)
    if size > MAX_BYTES:
        raise _TooLarge(f"more than {MAX_BYTES} bytes")
    return b"".join(chunks)


def _parse(body: bytes, now: datetime) -> _Post:
    """Sort the reports of a body into good and bad.

    Raises:
        ValueError: the body is not JSON.
        _TooLarge: it holds too many reports.
    """
    is_array = body.lstrip()[:1] == b"["
    try:  # nearly always all are good, and one pass over the bytes is enough
        reports = REPORTS.validate_json(body) if is_array else [TelemetryReport.model_validate_json(body)]
    except ValidationError:
        value = from_json(body)
        items: list[Any] = value if isinstance(value, list) else [value]
    else:
        items = list(reports)
    if len(items) > MAX_REPORTS:
        raise _TooLarge(f"more than {MAX_REPORTS} reports")
    post = _Post()
    for index, item in enumerate(items):
        try:
            report = item if isinstance(item, TelemetryReport) else TelemetryReport.model_validate_json(to_json(item))
        except ValidationError as error:
            post.bad.append(_refused(index, item, *_first(error)))
            continue
        if report.end > now + _AHEAD:
            post.bad.append(_refused(index, item, "end", "lies more than a day in the future"))
        elif report.start < now - _BEHIND:
            post.bad.append(_refused(index, item, "start", "lies more than 400 days in the past"))
        else:
            post.good.append(report)
    return post


def _first(error: ValidationError) -> tuple[str, str]:
    """Field and problem of an error, without anything that the phone sent: an unknown key may be text."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "extra_forbidden":
        return "", "has an unknown key"
    known = {info.alias or name for name, info in TelemetryReport.model_fields.items()}
    place = ".".join(str(part) for part in first["loc"] if part in known or isinstance(part, int))
    return place, first["msg"].removeprefix("Value error, ")


def _refused(index: int, item: Any, place: str, problem: str) -> dict[str, Any]:
    data = item.model_dump_json(by_alias=True).encode() if isinstance(item, TelemetryReport) else to_json(item)
    digest = hashlib.sha256(data).hexdigest()
    return {"index": index, "field": place, "problem": problem, "sha256": digest, "bytes": len(data)}
