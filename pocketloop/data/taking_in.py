"""Taking in: the log is brought up to date with what arrived, who is forgotten, and what is too old."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pocketloop.data.pull import pull
from pocketloop.data.received import Received
from pocketloop.data.retention import expire


class TakenIn(NamedTuple):
    """What changed in the log."""

    counts: dict[str, int]
    """By what happened, in words."""
    damaged: list[str]
    """Parts of the landing zone that could not be read to their end, with the reason."""


def take_in(
    log: Path, received: Received, now: datetime, retention_days: float, forget: Callable[[str], object]
) -> TakenIn:
    """Bring the log in the folder `log` up to date; `forget` is called for each device that others have forgotten.

    Raises:
        DataError: the landing zone, or the log, cannot be read.
    """
    pulled = pull(received, log, now)
    for device_id in pulled.forgotten_elsewhere:
        forget(device_id)
    expired = expire(log, received, now, retention_days)
    counts = {
        "newly arrived": pulled.new,
        "lines refused": sum(pulled.quarantined.values()),
        "devices forgotten": len(pulled.forgotten_elsewhere),
        f"events older than {retention_days:g} days removed": expired.events,
    }
    return TakenIn(counts, pulled.damaged)
