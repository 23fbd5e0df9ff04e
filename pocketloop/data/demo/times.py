"""Times of day, durations and calendar days as people say them, each value on one side of the split."""

from functools import lru_cache

from pocketloop.data.demo._random import Split, part_of

NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
MONTHS = "January February March April May June July August September October November December".split()
_HOURS = range(1, 13)
_DAYPARTS = {"morning": range(5, 12), "afternoon": range(1, 6), "evening": range(6, 11)}


def _times() -> dict[str, list[str]]:
    return {
        "clock": [f"{h}:{m:02d} {half}" for h in _HOURS for m in range(0, 60, 5) for half in ("am", "pm")],
        "tight": [f"{h}{half}" for h in _HOURS for half in ("am", "pm")],
        "hour": [f"{h} {half}" for h in _HOURS for half in ("am", "pm")],
        "24h": [f"{h}:{m:02d}" for h in range(6, 24) for m in range(0, 60, 5)],
        "half": [f"half past {word}" for word in NUMBERS],
        "quarter": [f"quarter {way} {word}" for word in NUMBERS for way in ("to", "past")],
        "minutes": [f"{n} {way} {h}" for n in ("five", "ten", "twenty") for h in NUMBERS for way in ("to", "past")],
        "words": [f"{h} {m}" for h in NUMBERS for m in ("fifteen", "thirty", "forty five", "twenty")],
        "o'clock": [f"{h} o'clock" for h in (*NUMBERS, *map(str, _HOURS))],
        "daypart": [
            f"{h} in the {part}" for part, hours in _DAYPARTS.items() for n in hours for h in (n, NUMBERS[n - 1])
        ],
        "named": ["noon", "midnight", "sunset", "sunrise", "lunchtime", "bedtime"],
    }


def _durations() -> dict[str, list[str]]:
    tens = ["fifteen", "twenty", "thirty", "forty", "forty five", "fifty", "ninety"]
    return {
        "minutes": [f"{n} minutes" for n in range(2, 100)],
        "spelled": [f"{word} minutes" for word in NUMBERS[1:] + tens],
        "seconds": [f"{n} seconds" for n in range(10, 100, 5)],
        "short": [f"{n} min" for n in range(2, 61)],
        "hours": [f"{n} hours" for n in range(2, 25)] + [f"{word} hours" for word in NUMBERS[1:]],
        "mixed": [f"{h} hours and {m} minutes" for h in range(2, 7) for m in range(5, 60, 5)],
        "hour and": [f"an hour and {m} minutes" for m in range(5, 60, 5)],
        "fine": [f"{m} minutes and {s} seconds" for m in range(2, 16) for s in range(10, 60, 10)],
        "halves": ["half an hour", "an hour", "an hour and a half", "a minute", "three quarters of an hour"]
        + [f"{word} and a half hours" for word in NUMBERS[1:]],
    }


def _ordinal(day: int) -> str:
    return f"{day}{'th' if 10 < day < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def _days() -> dict[str, list[str]]:
    dates = [(day, month) for month in MONTHS for day in range(1, 29)]
    return {
        "month first": [f"{month} {_ordinal(day)}" for day, month in dates],
        "plain": [f"{month} {day}" for day, month in dates],
        "day first": [f"the {_ordinal(day)} of {month}" for day, month in dates],
        "british": [f"{day} {month}" for day, month in dates],
        "day": [f"the {_ordinal(day)}" for day in range(1, 31)],
    }


@lru_cache(maxsize=8)
def moments(kind: str, split: Split) -> tuple[tuple[str, ...], ...]:
    """The values of `time`, `duration` or `calendar_day` on one side of the split, grouped by the way they are said."""
    patterns = {"time": _times, "duration": _durations, "calendar_day": _days}[kind]()
    groups = (tuple(value for value in values if part_of(value) == split) for values in patterns.values())
    return tuple(group for group in groups if group)
