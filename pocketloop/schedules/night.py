"""A night: whether one is due, one run at a time, its line in the log, and nobody left untold.

A due time is entered in the log before anything is run, and never entered twice. So a night that was missed is caught
up once, together with all that were missed before it, and a timer that fires again finds nothing to do. A night whose
process was killed stays in the log as it began; the next one that holds the adapter writes down that it failed.
"""

import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from pocketloop.contracts.errors import AdapterBusy
from pocketloop.contracts.schedules import Night, Outcome, Schedule
from pocketloop.schedules.cron import last_due
from pocketloop.schedules.holding import held
from pocketloop.schedules.store import ScheduleStore

Work = Callable[[Schedule, Path], Outcome]
"""Retrain, if there is enough new; what is printed goes to the file. It gives every failure as an outcome."""
Channels = Mapping[str, Callable[[str, Night], str]]
"""Whom to tell of an adapter's failed night, by name; each gives what went wrong in words, or nothing."""

_KILLED = "its process ended without a word: it was killed, or the machine went off"


def run_night(
    store: ScheduleStore, schedule: Schedule, now: datetime, work: Work, channels: Channels, force: bool = False
) -> Night | None:
    """Run the night that is due at `now` (aware), or with `force` one that is not.

    Returns:
        Its line in the log; `None` when none is due, or the schedule is paused.
    """
    night = _begin(store, schedule, now, force)
    if night is None:
        return None
    adapter, started = schedule.adapter, time.perf_counter()
    try:
        with held(store.home, adapter, f"pocketloop schedule run {adapter}"):
            _close_killed(store, adapter, night, list(channels))
            outcome = work(schedule, store.output(adapter, night.due))
    except AdapterBusy as busy:
        outcome = Outcome(result="skipped", reason=str(busy))
    untold = list(channels) if outcome.bad else []
    seconds = round(time.perf_counter() - started, 3)
    night = night.model_copy(update={"outcome": outcome, "seconds": seconds, "untold": untold})
    store.replace(night, adapter)
    tell(store, adapter, channels)
    return next(stored for stored in store.nights(adapter) if stored.due == night.due)


def tell(store: ScheduleStore, adapter: str, channels: Channels) -> None:
    """Tell of every failed night that somebody has not been told of; who cannot be told is tried again next time."""
    for night in store.nights(adapter):
        if not night.untold:
            continue
        left = [name for name in night.untold if name in channels and channels[name](adapter, night)]
        store.replace(night.model_copy(update={"untold": left}), adapter)


def _begin(store: ScheduleStore, schedule: Schedule, now: datetime, force: bool) -> Night | None:
    """Enter the night that is due in the log; `None` when none is."""
    running = Outcome(result="running", more=f"pocketloop schedule log {schedule.adapter} --output")
    with store.changing(schedule.adapter) as nights:
        handled = max([schedule.since, *(night.due for night in nights)])
        due, missed = (None, 0) if schedule.paused else last_due(schedule.cron, schedule.tz, handled, now)
        if due is None and force:
            due = max(now, handled + timedelta(microseconds=1))  # the log's order is that of time
        if due is None:
            return None
        night = Night(due=due, missed=missed, started=now, pid=os.getpid(), outcome=running)
        nights.append(night)
    return night


def _close_killed(store: ScheduleStore, adapter: str, own: Night, channels: list[str]) -> None:
    """Nobody else runs while we hold the adapter: what the log still calls running was killed."""
    with store.changing(adapter) as nights:
        for at, night in enumerate(nights):
            if night.outcome.result == "running" and night != own:
                failed = night.outcome.model_copy(update={"result": "failed", "reason": _KILLED})
                nights[at] = night.model_copy(update={"outcome": failed, "untold": channels})
