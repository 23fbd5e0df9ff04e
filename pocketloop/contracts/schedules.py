"""Schedules and their nights: what is run when, and what became of it."""

from typing import Literal

from pydantic import AwareDatetime, Field

from pocketloop.contracts.parts import Name, Part

Starter = Literal["systemd", "crontab", "zenml"]
"""What starts the nights: a timer of this machine, or the schedule of a stack's orchestrator."""

Result = Literal["running", "nothing new", "candidate", "failed", "skipped"]


class ScheduleConfig(Part):
    """`configs/schedules.yaml`."""

    notify: str = ""
    """Address that each failure is posted to as JSON; HTTPS, or loopback."""


class Schedule(Part):
    """One adapter's schedule."""

    adapter: Name
    recipe: str
    """As `retrain` takes it: a recipe's name, or the absolute path of one."""
    cron: str
    tz: str
    """Time zone in which `cron` counts, by its IANA name."""
    if_new: int = Field(ge=1)
    stack: str = "local"
    """A stack's name, or the absolute path of a stack file."""
    starter: Starter
    since: AwareDatetime
    """Nights due before this are none of this schedule's: its creation, or the end of its last pause."""
    paused: bool = False


class Outcome(Part):
    """What became of a night."""

    result: Result
    new: int | None = None
    """Examples that had come since the adapter's last run; unknown when the night ended before they were counted."""
    version: str = ""
    verdict: str = ""
    step: str = ""
    """Where it failed."""
    reason: str = ""
    """One line without anything that a user said."""
    more: str = ""
    """The command that shows more."""

    @property
    def bad(self) -> bool:
        """Whether somebody should look at it."""
        return self.result == "failed" or (self.result == "candidate" and self.verdict != "pass")


class Night(Part):
    """A line of the log."""

    due: AwareDatetime
    missed: int = 0
    """Earlier nights that were not run, the machine being off; this one did what they would have done."""
    started: AwareDatetime
    pid: int
    seconds: float | None = None
    """`None` while it runs, and for one that never came to its end."""
    outcome: Outcome
    untold: list[str] = Field(default_factory=list)
    """Whom this failure has not been told: `webhook`, `alerter`."""
