"""Waiting for what happens in another thread or process, and a clock for what must see time go by."""

import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import requests

PATIENCE = 300.0  # seconds; a wait ends as soon as it may, and a busy machine is no failure


def until(reached: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def until_served(url: str, server: "subprocess.Popen[Any]", log: Path | None = None) -> None:
    """Wait until `url` answers; the server's end is an error, with what it wrote to `log`."""

    def answers() -> bool:
        ended = f"the server of {url} ended with {server.poll()}"
        assert server.poll() is None, log.read_text(encoding="utf-8") if log else ended
        try:
            return requests.get(url, timeout=60).ok
        except requests.RequestException:
            return False

    until(answers)


def ticking(start: datetime) -> Callable[[], datetime]:
    """A clock that stands at `start` now, and goes on."""
    begun = time.monotonic()
    return lambda: start + timedelta(seconds=time.monotonic() - begun)
