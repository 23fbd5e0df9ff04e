"""`kill -9` of a real collector, again and again, while phones post: none acknowledged is lost, none is kept twice."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from posting import NDJSON, event, lines_of, stored, until

from pocketloop.contracts.home import Home
from pocketloop.data.received import Received
from pocketloop.services.app_tokens import AppTokens

PHONES, KILLS = 4, 3
TIMES: dict[str, str] = {}
"""When each event was first posted: an event that is posted again is the same one."""


class Collector:
    """The command in a process of its own, started again on the same port whenever it was killed."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, "POCKETLOOP_HOME": str(home), "POCKETLOOP_EVENTS": ""}

    def start(self) -> None:
        program = "from pocketloop.cli.main import main; main()"
        options = ["collector", "serve", "--port", str(self.port), "--flush-seconds", "0.2"]
        command = [sys.executable, "-c", program, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=self._environment)
        until(self.answers)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=5).ok
        except requests.ConnectionError:
            return False

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


class Phone(threading.Thread):
    """Posts its events in small batches, and a batch whose answer it did not hear again until it hears one."""

    def __init__(self, collector: Collector, token: str, number: int) -> None:
        super().__init__(daemon=True)
        self.collector, self.number = collector, number
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": NDJSON}
        self.acknowledged: set[str] = set()
        self.accepted = 0
        self.unheard = 0
        self.stop = threading.Event()

    def run(self) -> None:
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
            while True:
                try:
                    answer = session.post(
                        f"{self.collector.url}/v1/events", data=body, headers=self.headers, timeout=30
                    )
                    break
                except requests.ConnectionError:
                    self.unheard += 1
                    time.sleep(0.05)
            found = answer.json()
            assert answer.status_code == 200 and not found["rejected"], answer.text
            self.accepted += found["accepted"]
            self.acknowledged |= set(batch)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_a_kill_under_load_and_nothing_is_kept_twice(tmp_path: Path) -> None:
    home = Home(tmp_path)
    collector = Collector(tmp_path)
    phones = [Phone(collector, AppTokens.of(home).add(f"app{n}"), n) for n in range(PHONES)]
    collector.start()
    for phone in phones:
        phone.start()
    for turn in range(KILLS):
        time.sleep(0.6 + 0.17 * turn)
        collector.end(signal.SIGKILL)
        collector.start()
    time.sleep(0.5)
    for phone in phones:
        phone.stop.set()
    for phone in phones:
        phone.join(60)
    collector.end(signal.SIGTERM)
    found = [one["event_id"] for one in stored(Received(str(home.received)))]
    acknowledged = {one for phone in phones for one in phone.acknowledged}
    assert len(acknowledged) > 200 and sum(phone.unheard for phone in phones) > 0
    assert len(found) == len(set(found))
    assert set(found) == acknowledged
    # An event whose answer was lost in a kill is a duplicate when it is posted again, and none is accepted twice.
    assert sum(phone.accepted for phone in phones) <= len(acknowledged)
    assert not list((tmp_path / "collector" / "journal").glob("*.jsonl"))
