"""Cron expressions: which times they name, and the same as systemd says it.

Only what every scheduler reads alike is taken: five fields of numbers, names, lists, ranges and steps, and days of the
month or days of the week, not both (cron joins the two by `or`, systemd by `and`, and cron itself by `and` for `*/2`).
"""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pocketloop.contracts.errors import ConfigError

_NAMES = set("jan feb mar apr may jun jul aug sep oct nov dec sun mon tue wed thu fri sat".split())
_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_EXAMPLE = '--cron "0 3 * * *" is every night at 3'
_QUARTERS = (0, 15, 30, 45)
_MOST_MISSED = 1000


def check_cron(text: str) -> str:
    """The expression with single spaces between its five fields.

    Raises:
        ConfigError: it is none, or names no time.
    """
    from croniter import CroniterError, croniter

    fields = text.split()
    if len(fields) != 5:
        raise ConfigError(f"cron {text!r}: expected minute, hour, day, month, weekday; {_EXAMPLE}")
    plain = all(re.fullmatch(r"[0-9A-Za-z*,/-]+", field) for field in fields)
    if not plain or not {name.lower() for name in re.findall("[A-Za-z]+", text)} <= _NAMES:
        raise ConfigError(f"cron {text!r}: numbers, names, `*`, `,`, `-` and `/` only; {_EXAMPLE}")
    if fields[2] != "*" and fields[4] != "*":
        raise ConfigError(f"cron {text!r}: give days of the month or weekdays, and `*` for the other; {_EXAMPLE}")
    cron = " ".join(fields)
    try:
        croniter(cron, datetime.now(UTC)).get_next(datetime)
    except (CroniterError, KeyError, ValueError) as error:
        raise ConfigError(f"cron {text!r}: {error or 'not a cron expression'}; {_EXAMPLE}") from None
    return cron


def check_zone(name: str) -> str:
    """The time zone's name.

    Raises:
        ConfigError: there is no such zone.
    """
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        raise ConfigError(f"unknown time zone {name!r}; --tz takes names such as Europe/Berlin or UTC") from None


def local_zone() -> str:
    """IANA name of this machine's time zone."""
    from tzlocal import get_localzone_name

    return str(get_localzone_name())


def next_due(cron: str, tz: str, after: datetime) -> datetime:
    """The first time after `after` (aware), in UTC."""
    from croniter import croniter

    found: datetime = croniter(cron, after.astimezone(ZoneInfo(tz))).get_next(datetime)
    return found.astimezone(UTC)


def last_due(cron: str, tz: str, since: datetime, now: datetime) -> tuple[datetime | None, int]:
    """The last time after `since` up to `now` (both aware), and how many came between (a thousand at most)."""
    from croniter import croniter

    within = now.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(seconds=1)
    times = croniter(cron, within.astimezone(ZoneInfo(tz)))
    last: datetime = times.get_prev(datetime)
    if last <= since:
        return None, 0
    between = 0
    while between < _MOST_MISSED and times.get_prev(datetime) > since:
        between += 1
    return last.astimezone(UTC), between


def on_calendar(cron: str, tz: str) -> str:
    """The expression as systemd's `OnCalendar=` takes it."""
    from croniter import croniter

    minutes, hours, days, months, weekdays = croniter.expand(cron)[0]
    named = "" if weekdays == ["*"] else ",".join(_WEEKDAYS[int(day)] for day in sorted(weekdays)) + " "
    return f"{named}*-{_list(months)}-{_list(days)} {_list(hours)}:{_list(minutes)}:00 {tz}"


def every_zone(cron: str) -> str:
    """A cron expression that, in any time zone, is true at least whenever `cron` is: zones differ by quarter hours."""
    from croniter import croniter

    minutes = croniter.expand(cron)[0][0]
    if minutes == ["*"]:
        return "* * * * *"
    looked = sorted({(int(minute) + quarter) % 60 for minute in minutes for quarter in _QUARTERS})
    return ",".join(map(str, looked)) + " * * * *"


def _list(values: list[int | str]) -> str:
    return ",".join("*" if value == "*" else f"{value:02d}" for value in values)
