"""`POST /v1/events` takes `interaction/1` events, one a line; an answer means that the accepted ones are on disk.

200: the answer says of each line whether it was accepted, a duplicate, or rejected and why; posting a rejected line
again would not help. Every other status: nothing of the post was kept. 429 and 503: post the same again after
`Retry-After` seconds. 413: post it in smaller pieces. 400, 401, 415: mend the request. `docs/collector.md` has the
protocol for those who write apps.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from pocketloop.contracts.collecting import CollectorConfig
from pocketloop.contracts.errors import PocketloopError
from pocketloop.contracts.home import Home
from pocketloop.data.received import Received
from pocketloop.services.app_tokens import AppTokens
from pocketloop.services.bodies import Damaged, TooLarge, body_chunks, gunzipped
from pocketloop.services.collector_metrics import CollectorMetrics
from pocketloop.services.event_inbox import Arrival, EventInbox, Outcome
from pocketloop.services.event_lines import Lines, parse_lines
from pocketloop.services.group_commit import GroupCommit

CONTENT_TYPES = ("application/x-ndjson", "application/jsonl")
_SMALL = 1 << 15
"""Bytes of a body that is parsed at once: handing it to a thread would cost more than it delays others."""
_REFRESH_SECONDS = 5.0
_LONGEST_PAUSE = 30.0
_log = logging.getLogger(__name__)


class _Answer(Exception):
    """The request is refused as a whole."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = JSONResponse({"detail": detail}, status, headers)


@dataclass(frozen=True)
class EventIntake:
    """What the route works with: limits, where parts go, the folder of the journal and its index, who may post."""

    config: CollectorConfig
    store: Received
    folder: Path
    tokens: AppTokens

    @classmethod
    def of(cls, config: CollectorConfig, home: Home) -> "EventIntake":
        """The project's own."""
        return cls(config, Received.of(config, home), home.root / "collector", AppTokens.of(home))


class EventPosts:
    """The route, from `open` to `close`."""

    def __init__(self, intake: EventIntake, clock: Callable[[], datetime], metrics: CollectorMetrics) -> None:
        self._intake = intake
        self._limits = intake.config.limits
        self._clock = clock
        self._metrics = metrics
        self._in_hand = 0
        self._parsing = ThreadPoolExecutor(1, "parse")
        self._commit: GroupCommit[list[Arrival], list[Outcome]] = GroupCommit(
            lambda posts: self.inbox.add(posts, self._clock())
        )
        self.inbox: EventInbox
        self.behind = False
        """Whether the store could not be reached when it was last tried."""

    def open(self) -> None:
        """Open the inbox.

        Raises:
            DataError: another collector has the folder, or the journal is damaged.
        """
        config = self._intake.config
        remember = timedelta(days=config.retention_days)
        self.inbox = EventInbox(self._intake.folder, self._intake.store, config.flush_events, remember)
        self._metrics.gauge("waiting_events", "Events that are not in the store yet.", lambda: self.inbox.waiting)
        self._metrics.gauge(
            "waiting_bytes", "Bytes in the journal and in the hands of posts.", lambda: self._waiting_bytes
        )
        self._metrics.gauge("store_behind", "1 while the store cannot be reached.", lambda: float(self.behind))

    def close(self) -> None:
        """Write what waits to the store; if that cannot be reached, it waits in the journal for the next collector."""
        self._commit.close()
        self._parsing.shutdown()
        try:
            self.inbox.close()
        except (PocketloopError, OSError) as error:
            _log.error("events wait in %s, the store cannot be reached: %s", self._intake.folder, error)

    @property
    def _waiting_bytes(self) -> int:
        return self.inbox.waiting_bytes + self._in_hand

    async def post(self, request: Request) -> Response:
        """Answer one post."""
        try:
            app = self._authenticate(request)
            with self._holding() as take:
                lines = await self._read(request, take)
                outcomes = await self._commit.submit(lines.arrivals) if lines.arrivals else []
        except _Answer as refusal:
            return refusal.response
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except OSError as error:
            _log.error("events cannot be kept: %s", error)
            return self._later(503, "events cannot be kept now; post again later").response
        answers = lines.answers(outcomes)
        counts = Counter(answer["status"] for answer in answers)
        for outcome in ("accepted", "duplicate", "rejected"):
            self._metrics.events.labels(app, outcome).inc(counts[outcome])
        for reason, count in Counter(answer["reason"] for answer in answers if "reason" in answer).items():
            self._metrics.rejected.labels(reason).inc(count)
        body = {
            "accepted": counts["accepted"],
            "duplicates": counts["duplicate"],
            "rejected": counts["rejected"],
            "lines": answers,
        }
        return Response(to_json(body), media_type="application/json")

    async def work(self) -> None:
        """Write what waits whenever there is enough of it, or it is old enough; and learn which devices are forgotten.

        Never returns. While the store cannot be reached it is tried less and less often, and posts are taken until too
        much waits.
        """
        config = self._intake.config
        pause = min(1.0, config.flush_seconds)
        failures, refreshed = 0, float("-inf")
        loop = asyncio.get_running_loop()
        while True:
            opened = self.inbox.opened
            age = (self._clock() - opened).total_seconds() if opened else 0.0
            try:
                if self.inbox.waiting >= config.flush_events or age >= config.flush_seconds:
                    self._metrics.written.inc(await asyncio.to_thread(self.inbox.flush))
                    refreshed = loop.time()
                    failures = 0
                elif loop.time() - refreshed >= _REFRESH_SECONDS:
                    await asyncio.to_thread(self.inbox.refresh)
                    refreshed = loop.time()
                    failures = 0
            except Exception as error:
                failures += 1
                self._metrics.failures.inc()
                _log.error("the store cannot be reached, events wait in %s: %s", self._intake.folder, error)
            self.behind = failures > 0
            await asyncio.sleep(min(_LONGEST_PAUSE, pause * 2.0 ** min(failures, 10)))

    def _authenticate(self, request: Request) -> str:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        app = self._intake.tokens.app_of(secret.strip()) if scheme.lower() == "bearer" else None
        if app is None:
            raise _Answer(
                401, "a valid app token is needed: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"}
            )
        return app

    async def _read(self, request: Request, take: Callable[[int], None]) -> Lines:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in CONTENT_TYPES:
            raise _Answer(415, f"content-type: events are posted as {CONTENT_TYPES[0]}, one JSON object a line")
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise _Answer(415, "content-encoding: gzip or none", {"accept-encoding": "gzip, identity"})
        take(0)
        chunks = body_chunks(request, self._limits.body_bytes)
        if encoding == "gzip":
            chunks = gunzipped(chunks, self._limits.decompressed_bytes)
        pieces: list[bytes] = []
        try:
            async for piece in chunks:
                take(len(piece))
                pieces.append(piece)
            body = b"".join(pieces)
            arguments = (body, self._limits, self.inbox.forgotten, self._clock())
            if len(body) <= _SMALL:
                return parse_lines(*arguments)
            return await asyncio.get_running_loop().run_in_executor(self._parsing, parse_lines, *arguments)
        except Damaged as error:
            raise _Answer(400, str(error)) from None
        except TooLarge as error:
            raise _Answer(413, f"{error}; post smaller pieces") from None

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        """Account for bytes of a post until it is answered: they count as waiting from their arrival on."""
        held = 0

        def take(size: int) -> None:
            nonlocal held
            held += size
            self._in_hand += size
            if self._waiting_bytes > self._limits.waiting_bytes:
                raise self._later(429, "too much waits to be stored; post again later")

        try:
            yield take
        finally:
            self._in_hand -= held

    def _later(self, status: int, detail: str) -> _Answer:
        return _Answer(status, detail, {"retry-after": str(self._limits.retry_after_s)})
