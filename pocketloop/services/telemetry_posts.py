"""`POST /telemetry` takes one report or an array; an answer means that they are on disk.

202: all are kept, and a report that was posted before is counted once. 422: the answer lists what was refused by index
and field, and everything else is kept; posting the same again would not help. 413: too much at once, nothing is kept;
post smaller arrays. 503: the disk refuses, nothing is kept; post again.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.services.bodies import TooLarge, body_chunks
from pocketloop.services.collector_metrics import CollectorMetrics
from pocketloop.services.group_commit import GroupCommit
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


class TelemetryPosts:
    """The route, from `open` to `close`, with its reports in `folder` (see `delivery.telemetry` for the files)."""

    def __init__(
        self,
        folder: Path,
        flush_reports: int,
        flush_seconds: float,
        clock: Callable[[], datetime],
        metrics: CollectorMetrics,
    ) -> None:
        self.folder = folder
        self.flush_reports = flush_reports
        self.flush_seconds = flush_seconds
        self.clock = clock
        self.inbox: Inbox
        self._metrics = metrics
        self._commit: GroupCommit[list[TelemetryReport], int] = GroupCommit(
            lambda posts: self.inbox.add(posts, self.clock())
        )

    def open(self) -> None:
        """Open the inbox.

        Raises:
            DataError: another collector has the folder.
        """
        self.inbox = Inbox(self.folder)
        self._metrics.gauge("waiting_reports", "Reports in no Parquet file yet.", lambda: self.inbox.waiting)

    def close(self) -> None:
        """Write what waits."""
        self._commit.close()
        self.inbox.close()

    async def post(self, request: Request) -> Response:
        """Answer one post."""
        now = self.clock()
        try:
            body = b"".join([chunk async for chunk in body_chunks(request, MAX_BYTES)])
            post = _parse(body, now)
            new = await self._commit.submit(post.good)
            if post.bad:
                await asyncio.to_thread(self.inbox.quarantine, post.bad, now)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except TooLarge as error:
            return JSONResponse({"detail": f"{error}; post smaller arrays"}, 413)
        except ValueError as error:
            return JSONResponse({"detail": f"not JSON: {error}"}, 400)
        except OSError as error:
            _log.error("reports cannot be kept: %s", error)
            return JSONResponse({"detail": "cannot keep reports now; post again"}, 503, {"retry-after": "60"})
        for outcome, count in (("accepted", new), ("duplicate", len(post.good) - new), ("rejected", len(post.bad))):
            self._metrics.reports.labels(outcome).inc(count)
        answer: dict[str, Any] = {"accepted": new, "duplicates": len(post.good) - new}
        if post.bad:
            shown = [{name: row[name] for name in ("index", "field", "problem")} for row in post.bad]
            return JSONResponse({**answer, "rejected": shown}, 422)
        return JSONResponse(answer, 202)

    async def work(self) -> None:
        """Write what waits as Parquet whenever there is enough of it, or it is old enough; never returns."""
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


def _parse(body: bytes, now: datetime) -> _Post:
    """Sort the reports of a body into good and bad.

    Raises:
        ValueError: the body is not JSON.
        TooLarge: it holds too many reports.
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
        raise TooLarge(f"more than {MAX_REPORTS} reports")
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
