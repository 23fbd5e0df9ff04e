"""What a phone counts about its adapters, and how the counts reach the collector: aggregates only, never text.

Counts lie on disk as reports in the making, one for each adapter file that ran, each with its id from the start. What
is posted stays on disk until the collector's answer says that it has it; a post whose answer is lost is repeated with
the same ids, which the collector counts once.

A run of the app goes from `begin` to `end`. A run that was begun and never ended is a crash of the adapter that it used
last; the next `begin` counts it.
"""

import json
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pocketloop.contracts.delivery import LATENCY_BOUNDS_MS, Digest, TelemetryReport
from pocketloop.contracts.files import write_json
from pocketloop.contracts.parts import Name
from pocketloop.device.errors import DeviceBusy

_MOST = 2**31 - 1
_AT_ONCE = 500  # reports in one post
_CONNECT_S, _READ_S = 5, 15
_LONGEST_ANSWER = 1 << 20
_log = logging.getLogger(__name__)


class Used(BaseModel):
    """An adapter that ran: its file, its base, and the generation of the policy that chose it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: Name
    digest: Digest | None
    """sha256 of the adapter file; `None` is the base alone."""
    base_digest: Digest
    generation: int = 0


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid")

    counting: list[TelemetryReport] = Field(default_factory=list)
    outbox: list[TelemetryReport] = Field(default_factory=list)
    """Closed reports that the collector has not confirmed."""
    running: bool = False
    last: Used | None = None
    """What the running app used last."""


class Posted(BaseModel):
    """How a post ended: reports that the collector has now, those that wait, and why, if any do."""

    confirmed: int
    waiting: int
    problem: str = ""


class Recorder:
    """Counts for one device, in `telemetry.json` in `folder`.

    Any process of the device may post; only one at a time may be in a run.

    Args:
        folder: the device's state; made where needed.
        device_id: as for the canary bucket.
        clock: gives an aware time.
    """

    def __init__(
        self,
        folder: Path,
        device_id: str,
        *,
        app_version: str = "",
        locale: str = "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.device_id = device_id
        self.app_version = app_version
        self.locale = locale
        self.clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "telemetry.json"
        self._lock = FileLock(folder / "telemetry.lock")
        self._posting = FileLock(folder / "posting.lock")
        # The system lets go of it when the process dies; whichever thread ends the run may release it.
        self._run = FileLock(folder / "run.lock", thread_local=False)
        self._used: set[Used] = set()

    def begin(self) -> bool:
        """Begin a run of the app; returns whether the one before crashed.

        Raises:
            DeviceBusy: another process is in a run.
        """
        try:
            self._run.acquire(timeout=0)
        except Timeout:
            raise DeviceBusy(f"{self._path.parent}: another process of this device runs the app") from None
        self._used.clear()
        crashed: list[Used] = []

        def start(state: _State) -> None:
            if state.running and state.last is not None:
                crashed.append(state.last)
                self._count(state, state.last, "crashes")
            state.running, state.last = True, None

        self._tally(start)
        return bool(crashed)

    def end(self) -> None:
        """End the run cleanly."""

        def stop(state: _State) -> None:
            state.running, state.last = False, None

        self._tally(stop)
        self._run.release()

    def __enter__(self) -> "Recorder":
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._run.release()  # what ends an app with an error is a crash: the next run counts it
        else:
            self.end()

    def use(self, used: Used) -> None:
        """An adapter is about to answer; the first time in a run is a session of it. A crash from now on is its own."""
        new = used not in self._used
        self._used.add(used)

        def load(state: _State) -> None:
            if new:
                self._count(state, used, "sessions")
            state.last = used

        self._tally(load)

    def answered(self, used: Used, latency_ms: float) -> None:
        """An answer was complete after `latency_ms`."""

        def note(state: _State) -> None:
            histogram = self._report(state, used).latency
            place = bisect_left(LATENCY_BOUNDS_MS, latency_ms)
            histogram[place] = min(histogram[place] + 1, _MOST)

        self._tally(note)

    def fell_back(self, used: Used) -> None:
        """The adapter was not sure enough, or failed: something else had to answer."""
        self._tally(lambda state: self._count(state, used, "fallbacks"))

    def rated(self, used: Used, up: bool) -> None:
        """The user liked an answer, or did not."""
        self._tally(lambda state: self._count(state, used, "thumbs_up" if up else "thumbs_down"))

    def reverted(self, used: Used, times: int = 1) -> None:
        """The device went back from this file to an earlier one by itself."""
        self._tally(lambda state: self._count(state, used, "reverts", times))

    def drain(self) -> list[TelemetryReport]:
        """What is to be posted: the reports of last time while they are unconfirmed, otherwise those counted since.

        Raises:
            OSError: the device's disk refuses.
        """
        with self._change() as state:
            if not state.outbox:
                now = self.clock()
                # A clock that was set back meanwhile must not give a span that ends before it starts.
                state.outbox = [report.model_copy(update={"end": max(now, report.start)}) for report in state.counting]
                state.counting = []
            return state.outbox

    def confirm(self, reports: Sequence[TelemetryReport]) -> None:
        """The collector has these reports.

        Raises:
            OSError: the device's disk refuses.
        """
        known = {report.report_id for report in reports}
        with self._change() as state:
            state.outbox = [report for report in state.outbox if report.report_id not in known]

    def post(self, url: str) -> Posted:
        """Post what was counted to the collector (`.../telemetry`); whatever it does not confirm is kept for next time.

        Never raises: telemetry must not keep an app from working.
        """
        confirmed = 0
        problem = ""
        reports: list[TelemetryReport] = []
        try:
            with self._posting.acquire(timeout=0):
                while not problem and (reports := self.drain()):
                    batch = reports[:_AT_ONCE]
                    problem = _post(url, batch)
                    if not problem:
                        self.confirm(batch)
                        confirmed += len(batch)
        except Timeout:
            problem = "another process is posting"
        except OSError as error:
            problem = f"{self._path.parent}: {error.strerror or error}"
        return Posted(confirmed=confirmed, waiting=len(reports), problem=problem)

    def _tally(self, change: Callable[[_State], None]) -> None:
        """Count something, or lose that count where the disk refuses: an answer matters more."""
        try:
            with self._change() as state:
                change(state)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error)

    @contextmanager
    def _change(self) -> Iterator[_State]:
        with self._lock:
            state = self._read()
            yield state
            write_json(self._path, state.model_dump(mode="json", by_alias=True))

    def _read(self) -> _State:
        try:
            return _State.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _State()
        except ValidationError:
            # A disk that lost the file's contents must not keep the app from starting.
            _log.warning("%s was damaged; counting starts anew, and the damaged file is kept beside it", self._path)
            self._path.replace(self._path.with_suffix(".damaged"))
            return _State()

    def _report(self, state: _State, used: Used) -> TelemetryReport:
        """The report in the making of what ran."""
        for report in state.counting:
            if (report.adapter, report.digest, report.base_digest, report.generation) == (
                used.adapter,
                used.digest,
                used.base_digest,
                used.generation,
            ):
                return report
        now = self.clock()
        report = TelemetryReport(
            report_id=uuid4().hex,
            device_id=self.device_id,
            start=now,
            end=now,
            app_version=self.app_version,
            locale=self.locale,
            **used.model_dump(),
        )
        state.counting.append(report)
        return report

    def _count(self, state: _State, used: Used, name: str, times: int = 1) -> None:
        report = self._report(state, used)
        setattr(report, name, min(getattr(report, name) + times, _MOST))


def _post(url: str, reports: list[TelemetryReport]) -> str:
    """Post reports; an empty string if the collector has them, otherwise what went wrong."""
    import requests

    body = json.dumps([report.model_dump(mode="json", by_alias=True) for report in reports])
    headers = {"content-type": "application/json"}
    try:
        answer = requests.post(
            url, data=body, headers=headers, timeout=(_CONNECT_S, _READ_S), allow_redirects=False, stream=True
        )
        with answer:
            if answer.status_code not in (202, 422):
                return f"the collector answered {answer.status_code}"
            text = b""
            for piece in answer.iter_content(1 << 16):
                text += piece
                if len(text) > _LONGEST_ANSWER:
                    break
    except (requests.RequestException, OSError) as error:
        return f"the collector cannot be reached ({type(error).__name__})"
    # A network that wants a login answers 200, or anything else, to everything: only the collector can count for us.
    return "" if _accounted(text) == len(reports) else "something other than the collector answered"


def _accounted(text: bytes) -> int | None:
    """Reports that an answer accounts for; refused ones (422) would be refused again, and are over with too."""
    try:
        answer: Any = json.loads(text)
        return int(answer["accepted"]) + int(answer["duplicates"]) + len(answer.get("rejected", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
