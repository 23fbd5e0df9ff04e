"""What keeps the repository alive: signing again before metadata expires, and deleting what nothing names any more."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketloop.delivery.repository import Repository


def refresh(repository: "Repository", now: datetime) -> list[str]:
    """See `Repository`."""
    raise NotImplementedError


def collect_garbage(
    repository: "Repository", keep: int, grace: timedelta, protect: frozenset[str], now: datetime
) -> list[str]:
    """See `Repository`."""
    raise NotImplementedError
