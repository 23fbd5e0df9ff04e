"""Waiting for what happens in another thread or process."""

import time
from collections.abc import Callable

PATIENCE = 300.0  # seconds; a wait ends as soon as it may, and a busy machine is no failure


def until(reached: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)
