"""An app that posts events, and a collector to post to."""

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from starlette.applications import Starlette

from pocketloop.contracts.collecting import CollectorConfig
from pocketloop.contracts.home import Home
from pocketloop.data.received import Received
from pocketloop.services.collector import create_app
from pocketloop.services.event_inbox import EventInbox
from pocketloop.services.event_posts import EventIntake
from pocketloop.services.running import running

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NDJSON = "application/x-ndjson"


def event(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An event as a phone posts it."""
    return {
        "schema": "interaction/1",
        "event_id": f"e{number}",
        "device_id": f"d{number % 7}",
        "ts": "2026-11-21T10:00:00Z",
        "locale": "en-GB",
        "adapter": {"skill": "functions", "version": "3"},
        "consent": {"training": True, "policy": "2026-01"},
        "messages": [{"role": "user", "content": "wake me at seven"}],
        **changes,
    }


def lines_of(events: Iterable[Any]) -> bytes:
    """A body of JSON lines; bytes are lines as they are."""
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in events)


@dataclass
class Posts:
    """An app with a token, and the collector that it posts to."""

    address: str
    token: str
    app: Starlette
    store: Received
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def inbox(self) -> EventInbox:
        inbox: EventInbox = self.app.state.events
        return inbox

    def post(self, body: bytes, **headers: str) -> requests.Response:
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": NDJSON}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(f"{self.address}/v1/events", data=body, headers=given, timeout=120)

    def events(self, *events: Any, zipped: bool = False) -> dict[str, Any]:
        """Post events that the collector must take as a post; its answer."""
        body = lines_of(events)
        answer = self.post(gzip.compress(body), Content_Encoding="gzip") if zipped else self.post(body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["accepted"] + found["duplicates"] + found["rejected"] == len(found["lines"])
        return found

    def statuses(self, *events: Any) -> list[str]:
        """What became of each event: a rejected one by its reason."""
        return [line.get("reason", line["status"]) for line in self.events(*events)["lines"]]


@contextmanager
def collecting(folder: Path, store: str = "", **changes: Any) -> Iterator[Posts]:
    """A collector with its state in `folder`, whose clock stands at NOW; `changes` to its configuration."""
    clock = changes.pop("clock", lambda: NOW)
    config = CollectorConfig.model_validate({"store": store, "flush_seconds": 3600, **changes})
    home = Home(folder)
    intake = EventIntake.of(config, home)
    token = intake.tokens.add(f"app{len(intake.tokens.tokens())}")
    app = create_app(home.telemetry, events=intake, clock=clock)
    with running(app) as address:
        yield Posts(address, token, app, intake.store)


def stored(store: Received) -> list[dict[str, Any]]:
    """All events of the landing zone, as they lie there."""
    return [json.loads(line) for part in store.parts() for line in store.read(part)]
