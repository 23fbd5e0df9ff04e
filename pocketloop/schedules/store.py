"""Schedules and nights on disk: `schedules/ADAPTER/schedule.json`, `nights.json`, and what each night printed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.files import write_json
from pocketloop.contracts.home import Home
from pocketloop.contracts.schedules import Night, Schedule

_NIGHTS = TypeAdapter(list[Night])
_KEPT_NIGHTS = 1000
_KEPT_OUTPUTS = 30


class ScheduleStore:
    """The schedules of one home. Every file is whole at any moment."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def all(self) -> list[Schedule]:
        """Every schedule, by name."""
        files = sorted(self.home.schedules.glob("*/schedule.json"))
        return [Schedule.model_validate_json(file.read_bytes()) for file in files]

    def find(self, adapter: str) -> Schedule | None:
        """The adapter's schedule, if it has one."""
        file = self._folder(adapter) / "schedule.json"
        return Schedule.model_validate_json(file.read_bytes()) if file.is_file() else None

    def get(self, adapter: str) -> Schedule:
        """The adapter's schedule.

        Raises:
            ConfigError: it has none.
        """
        found = self.find(adapter)
        if found is None:
            known = ", ".join(schedule.adapter for schedule in self.all())
            hint = (
                f"known: {known}" if known else f'`pocketloop schedule create {adapter} --cron "0 3 * * *"` makes one'
            )
            raise ConfigError(f"{adapter} has no schedule; {hint}")
        return found

    def put(self, schedule: Schedule) -> None:
        """Write a schedule, in place of the adapter's former one."""
        write_json(self._folder(schedule.adapter) / "schedule.json", schedule)

    def remove(self, adapter: str) -> None:
        """Remove the schedule; the log of its nights stays."""
        (self._folder(adapter) / "schedule.json").unlink(missing_ok=True)

    def nights(self, adapter: str) -> list[Night]:
        """The adapter's nights, the oldest first."""
        file = self._folder(adapter) / "nights.json"
        return _NIGHTS.validate_json(file.read_bytes()) if file.is_file() else []

    @contextmanager
    def changing(self, adapter: str) -> Iterator[list[Night]]:
        """The nights, to be changed in place; nobody else changes them meanwhile."""
        folder = self._folder(adapter)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".nights.lock"):
            nights = self.nights(adapter)
            yield nights
            write_json(folder / "nights.json", _NIGHTS.dump_python(nights[-_KEPT_NIGHTS:], mode="json"))

    def replace(self, night: Night, adapter: str) -> None:
        """Write what has become of a night; no two are due at the same time."""
        with self.changing(adapter) as nights:
            nights[:] = [night if other.due == night.due else other for other in nights]

    def output(self, adapter: str, due: datetime) -> Path:
        """Where a night's output goes; those of earlier nights but the newest are removed."""
        folder = self._folder(adapter) / "output"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.log"))[: -_KEPT_OUTPUTS + 1]:
            old.unlink()
        return folder / f"{due:%Y%m%dT%H%M%SZ}.log"

    def newest_output(self, adapter: str) -> Path | None:
        """What the last night printed, if any did."""
        return max((self._folder(adapter) / "output").glob("*.log"), default=None)

    def _folder(self, adapter: str) -> Path:
        return self.home.schedules / adapter
