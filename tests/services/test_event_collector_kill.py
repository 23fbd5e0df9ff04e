"""`kill -9` of a real collector, again and again, while phones post: none acknowledged is lost, none is kept twice."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from free_port import free_port
from posting import NDJSON, event, lines_of, stored
from until import PATIENCE, until, until_served

from pocketloop.contracts.home import Home
from pocketloop.data.received import Received
from pocketloop.services.app_tokens import AppTokens

PHONES, KILLS, EACH = 4, 3, 60
TIMES: dict[str, str] = {}
"""When each event was first posted: an event that is posted again is the same one."""


class Collector:
    """The command in a process of its own, started again on the same port whenever it was killed."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, "POCKETLOOP_HOME": str(home), "POCKETLOOP_EVENTS": ""}

    def start(self) -> None:
        program = "from pocketloop.cli.main import main; main()"
        options = ["collector", "serve", "--port", str(self.port), "--flush-seconds", "0.2"]
        command = [sys.executable, "-c", program, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=self._environment)
        until_served(f"{self.url}/healthz", self.process)

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(PATIENCE)


class Phone:
    """Posts its events in small batches, and a batch whose answer it did not hear again until it hears one."""

    def __init__(self, collector: Collector, token: str, number: int) -> None:
        self.url, self.number = f"{collector.url}/v1/events", number
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": NDJSON}
        self.acknowledged: set[str] = set()
        self.accepted = 0
        self.unheard = 0
        self.stop = threading.Event()

    def live(self) -> None:
        rng = random.Random(self.number)
        session = requests.Session()
        count = 0
        while not self.stop.is_set():
            size = rng.randint(1, 9)
            batch = [f"p{self.number}-{count + i}" for i in range(size)]
            count += size
            batch += rng.sample(sorted(self.acknowledged), min(len(self.acknowledged), rng.randint(0, 2)))
            now = datetime.now(UTC).isoformat()
            body = lines_of(
                event(event_id=one, device_id=f"p{self.number}", ts=TIMES.setdefault(one, now)) for one in batch
            )
            until(lambda body=body: self._hears(session, body))
            found = self.answer.json()
            assert self.answer.status_code == 200 and not found["rejected"], self.answer.text
            self.accepted += found["accepted"]
            self.acknowledged |= set(batch)

    def _hears(self, session: requests.Session, body: bytes) -> bool:
        """Whether the answer came, and came whole: a kill cuts it before its head, in it or behind it."""
        try:
            self.answer = session.post(self.url, data=body, headers=self.headers, timeout=60)
        except requests.RequestException:
            self.unheard += 1
            return False
        return True


def acknowledged_by(phones: list[Phone]) -> int:
    return sum(len(phone.acknowledged) for phone in phones)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_a_kill_under_load_and_nothing_is_kept_twice(tmp_path: Path) -> None:
    home = Home(tmp_path)
    collector = Collector(tmp_path)
    phones = [Phone(collector, AppTokens.of(home).add(f"app{n}"), n) for n in range(PHONES)]
    collector.start()
    with ThreadPoolExecutor(PHONES) as pool:
        lives = [pool.submit(phone.live) for phone in phones]
        try:
            for turn in range(KILLS):
                time.sleep(0.6 + 0.17 * turn)
                wanted = EACH * (turn + 1)
                until(lambda wanted=wanted: acknowledged_by(phones) >= wanted or any(life.done() for life in lives))
                collector.end(signal.SIGKILL)
                collector.start()
            time.sleep(0.5)
            for phone in phones:
                phone.stop.set()
            for life in lives:
                life.result()
            collector.end(signal.SIGTERM)
        finally:
            for phone in phones:
                phone.stop.set()
            collector.process.kill()
    found = [one["event_id"] for one in stored(Received(str(home.received)))]
    acknowledged = {one for phone in phones for one in phone.acknowledged}
    assert len(acknowledged) >= EACH * KILLS and sum(phone.unheard for phone in phones) > 0
    assert len(found) == len(set(found))
    assert set(found) == acknowledged
    # An event whose answer was lost in a kill is a duplicate when it is posted again, and none is accepted twice.
    assert sum(phone.accepted for phone in phones) <= len(acknowledged)
    assert not list((tmp_path / "collector" / "journal").glob("*.jsonl"))
