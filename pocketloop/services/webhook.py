"""The review service: MLflow's webhook wakes promotion at once, a poll reconciles what webhooks lost.

A webhook carries no authority. It is believed only that something happened: promotion checks every released version
itself. The signature and the memory of deliveries keep strangers from making it work for nothing.
"""

import base64
import hashlib
import hmac
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pocketloop.contracts.parts import Name

PATH = "/webhooks/mlflow"
_TOLERANCE = 300
"""Seconds that a delivery's timestamp may differ from the clock here."""
_MOST_BODY = 1 << 20
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def create_app(
    secret: str, wake: Callable[[str], None], deliveries: Path, now: Callable[[], float] = time.time
) -> Starlette:
    """The app that MLflow's webhook posts to.

    It answers 204 to a delivery that is MLflow's, 401 to a wrong signature or an old timestamp, 409 to a delivery that
    came before, 413 to a body that is too large.

    Args:
        secret: what MLflow signs with.
        wake: called with an adapter's name when a version of `<adapter>.released` was created.
        deliveries: SQLite file that remembers deliveries across restarts.
        now: the clock, in seconds since 1970.
    """
    seen = _Deliveries(deliveries)

    async def deliver(request: Request) -> Response:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return PlainTextResponse("too large", 413)
        delivery = request.headers.get("x-mlflow-delivery-id", "")
        stamp = request.headers.get("x-mlflow-timestamp", "")
        expected = sign(secret, delivery, stamp, body)
        if not delivery or not hmac.compare_digest(
            expected.encode(), request.headers.get("x-mlflow-signature", "").encode()
        ):
            return PlainTextResponse("the signature is missing or wrong", 401)
        if not stamp.isdecimal() or abs(now() - int(stamp)) > _TOLERANCE:
            return PlainTextResponse("the timestamp is too far from this clock", 401)
        if not seen.add(delivery, now()):
            return PlainTextResponse("this delivery came before", 409)
        adapter = released_adapter(body)
        if adapter is not None:
            wake(adapter)
        return Response(status_code=204)

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(routes=[Route(PATH, deliver, methods=["POST"]), Route("/healthz", health)])


def sign(secret: str, delivery: str, stamp: str, body: bytes) -> str:
    """MLflow's signature of a delivery: HMAC-SHA256 over its id, timestamp and body."""
    signed = hmac.new(secret.encode(), f"{delivery}.{stamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


def released_adapter(body: bytes) -> str | None:
    """The adapter whose released model got a new version, by a webhook's body; `None` for any other event."""
    try:
        event = json.loads(body)
        if (event["entity"], event["action"]) != ("model_version", "created"):
            return None
        name, dot, suffix = str(event["data"]["name"]).rpartition(".")
        return _NAME.validate_python(name) if dot and suffix == "released" else None
    except (ValueError, KeyError, TypeError, ValidationError):
        return None


async def _body(request: Request) -> bytes | None:
    """The request's body, or `None` once it is too large: it is read before anything shows who sent it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
            return None
    return bytes(body)


class _Deliveries:
    """Ids of deliveries, for as long as their timestamps would be believed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with closing(sqlite3.connect(path)) as store, store:
            store.execute("CREATE TABLE IF NOT EXISTS delivery (id TEXT PRIMARY KEY, at REAL NOT NULL)")

    def add(self, delivery: str, at: float) -> bool:
        """Remember a delivery; `False` when it came before."""
        with closing(sqlite3.connect(self.path, timeout=10)) as store, store:
            store.execute("DELETE FROM delivery WHERE at < ?", (at - 3 * _TOLERANCE,))
            return store.execute("INSERT OR IGNORE INTO delivery VALUES (?, ?)", (delivery, at)).rowcount == 1


class Promoter:
    """Promotes adapters one after another, in a thread: those that it is woken for, and those that a poll finds.

    Args:
        promote: promotes one adapter; what it raises is reported and tried again at the next poll.
        waiting: the adapters that have something to promote.
        poll: seconds between polls; the first is made at once.
        report: told in a line what happens.
    """

    def __init__(
        self,
        promote: Callable[[str], None],
        waiting: Callable[[], list[str]],
        poll: float = 300,
        report: Callable[[str], None] = print,
    ) -> None:
        self._promote, self._waiting, self._poll, self._report = promote, waiting, poll, report
        self._named: dict[str, None] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="promoter", daemon=True)

    def wake(self, adapter: str) -> None:
        """Promote this adapter soon; asking twice before it begins is asking once."""
        with self._changed:
            self._named[adapter] = None
            self._changed.notify()

    def __enter__(self) -> "Promoter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            with self._changed:
                self._changed.wait_for(lambda: self._named or self._stopping, max(0.0, due - time.monotonic()))
                named, self._named = list(self._named), {}
            if time.monotonic() >= due:
                due = time.monotonic() + self._poll
                named += [adapter for adapter in self._poll_once() if adapter not in named]
            for adapter in named:
                if not self._stopping:
                    self._try(adapter)

    def _poll_once(self) -> list[str]:
        try:
            return self._waiting()
        except Exception as error:  # MLflow is away: the next poll asks again
            self._report(f"poll: MLflow cannot be read ({type(error).__name__}); tried again in {self._poll:.0f} s")
            return []

    def _try(self, adapter: str) -> None:
        try:
            self._promote(adapter)
            self._report(f"{adapter}: promotion finished")
        except Exception as error:  # one adapter's trouble is not another's
            self._report(f"{adapter}: {error}; tried again in {self._poll:.0f} s if it still waits")


def promote_in_a_process(adapter: str) -> None:
    """Run `pocketloop promote ADAPTER`: a pipeline's memory and its crashes stay out of the service.

    Raises:
        RuntimeError: it failed; its output says why.
    """
    command = [str(Path(sys.executable).with_name("pocketloop")), "promote", "--", adapter]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise RuntimeError(f"`pocketloop promote {adapter}` ended with status {status}")
