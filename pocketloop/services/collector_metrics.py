"""What the collector counts about itself, in Prometheus' text format; never anything of an event."""

import time
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
Handler = Callable[[Request], Awaitable[Response]]


class CollectorMetrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._posts = Counter(
            "pocketloop_collector_posts", "Posts by route and status.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "pocketloop_collector_post_seconds",
            "From a post's headers to its answer.",
            ["route"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self.events = Counter(
            "pocketloop_collector_events", "Events by app and outcome.", ["app", "outcome"], registry=self._registry
        )
        self.rejected = Counter(
            "pocketloop_collector_rejected_events", "Rejected events by reason.", ["reason"], registry=self._registry
        )
        self.reports = Counter(
            "pocketloop_collector_reports", "Telemetry reports by outcome.", ["outcome"], registry=self._registry
        )
        self.written = Counter(
            "pocketloop_collector_written_events", "Events written to the store.", registry=self._registry
        )
        self.failures = Counter(
            "pocketloop_collector_store_failures", "Times that the store could not be reached.", registry=self._registry
        )

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge `pocketloop_collector_NAME` whose value is asked for when somebody reads it."""
        Gauge(f"pocketloop_collector_{name}", meaning, registry=self._registry).set_function(value)

    def measured(self, route: str, handle: Handler) -> Handler:
        """`handle`, with its answers counted and timed."""

        async def measure(request: Request) -> Response:
            start = time.perf_counter()
            status = 500
            try:
                response = await handle(request)
                status = response.status_code
                return response
            finally:
                self._posts.labels(route, str(status)).inc()
                self._seconds.labels(route).observe(time.perf_counter() - start)

        return measure

    async def page(self, _: Request) -> Response:
        """Everything, as Prometheus reads it."""
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})
