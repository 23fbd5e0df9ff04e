"""The collector: phones post their events and their telemetry here; an answer means that they are on disk.

Two routes, each with a journal of its own: `event_posts` (`POST /v1/events`, with an app's token) and `telemetry_posts`
(`POST /telemetry`, which is open: it takes counts, never text). Beside them `GET /healthz`, `GET /metrics` for
Prometheus, and `GET /openapi.json`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pocketloop.services.collector_metrics import CollectorMetrics
from pocketloop.services.collector_schema import EVENTS, TELEMETRY
from pocketloop.services.event_posts import EventIntake, EventPosts
from pocketloop.services.telemetry_posts import TelemetryPosts


def create_app(
    folder: Path,
    *,
    events: EventIntake | None = None,
    flush_reports: int = 20_000,
    flush_seconds: float = 60.0,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """The collector's app, with its telemetry reports in `folder` (see `delivery.telemetry` for the files).

    Reports wait in a journal until there are `flush_reports` of them, or the oldest is `flush_seconds` old, or the app
    stops. `app.state.inbox.flush()` writes them at once.

    Args:
        events: takes events, too; their inbox is `app.state.events`.

    Raises:
        DataError: when the app starts, if another collector has the folder.
    """
    metrics = CollectorMetrics()
    telemetry = TelemetryPosts(folder, flush_reports, flush_seconds, clock, metrics)
    posts = EventPosts(events, clock, metrics) if events else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_opened(telemetry))
            if posts:
                await stack.enter_async_context(_opened(posts))
            app.state.inbox = telemetry.inbox
            app.state.events = posts.inbox if posts else None
            yield

    async def healthz(_: Request) -> Response:
        health: dict[str, Any] = {"status": "ok", "waiting": telemetry.inbox.waiting}
        if posts:
            store = "behind" if posts.behind else "ok"
            health["events"] = {"waiting": posts.inbox.waiting, "bytes": posts.inbox.waiting_bytes, "store": store}
        return JSONResponse(health)

    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(title="pocketloop collector", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_api_route("/telemetry", metrics.measured("/telemetry", telemetry.post), methods=["POST"], **TELEMETRY)
    if posts:
        app.add_api_route("/v1/events", metrics.measured("/v1/events", posts.post), methods=["POST"], **EVENTS)
    app.add_api_route("/healthz", healthz, summary="Whether the collector runs, and what waits")
    app.add_api_route("/metrics", metrics.page, include_in_schema=False)
    return app


def serve(app: FastAPI, host: str = "127.0.0.1", port: int = 8090) -> None:
    """Collect until interrupted; what waits is written before it returns."""
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, ws="none")


@asynccontextmanager
async def _opened(route: TelemetryPosts | EventPosts) -> AsyncIterator[None]:
    await asyncio.to_thread(route.open)
    working = asyncio.create_task(route.work())
    try:
        yield
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        await asyncio.to_thread(route.close)
