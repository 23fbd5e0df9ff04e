"""Cron expressions: what is refused, what is due, and what systemd is told."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.errors import ConfigError
from pocketloop.schedules.cron import check_cron, check_zone, every_zone, last_due, local_zone, next_due, on_calendar

NIGHTLY = "0 3 * * *"


@pytest.mark.parametrize(
    "text",
    ["", "0 3 * *", "0 3 * * * *", "@daily", "0 25 * * *", "0 3 * * funday", "H 3 * * *", "0 3 L * *", "0 3 1 * mon",
     "0 3 30 2 *", "0 3 * * 1#2", "*/0 * * * *", "0 3 * *\n* x", "0;3 * * * *"],
)  # fmt: skip
def test_what_schedulers_read_differently_or_not_at_all_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r'--cron "0 3 \* \* \*" is every night at 3'):
        check_cron(text)


def test_spaces_do_not_count_and_names_do() -> None:
    assert check_cron("  0   3  *  *  mon-FRI ") == "0 3 * * mon-FRI"


def test_an_unknown_time_zone_is_refused() -> None:
    assert check_zone("Europe/Berlin") == "Europe/Berlin"
    for wrong in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(ConfigError, match="unknown time zone"):
            check_zone(wrong)
    assert check_zone(local_zone())


def moments(*, hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def test_a_night_is_due_from_its_minute_on_until_it_was_handled() -> None:
    since = moments(hour=12)
    assert last_due(NIGHTLY, "UTC", since, moments(day=2, hour=2, minute=59)) == (None, 0)
    due = moments(day=2, hour=3)
    assert last_due(NIGHTLY, "UTC", since, due) == (due, 0)
    assert last_due(NIGHTLY, "UTC", since, due + timedelta(hours=20)) == (due, 0)
    assert last_due(NIGHTLY, "UTC", due, due + timedelta(hours=20)) == (None, 0)


def test_many_missed_nights_are_one_due_night() -> None:
    due, missed = last_due(NIGHTLY, "UTC", moments(hour=12), moments(day=9, hour=10))
    assert (due, missed) == (moments(day=9, hour=3), 7)
    assert last_due("* * * * *", "UTC", moments(hour=0), moments(day=20, hour=0))[1] == 1000


def test_nights_follow_their_time_zone_across_a_change_of_the_clock() -> None:
    autumn = datetime(2026, 10, 24, 12, tzinfo=UTC)
    first = next_due(NIGHTLY, "Europe/Berlin", autumn)
    second = next_due(NIGHTLY, "Europe/Berlin", first)
    assert [moment.astimezone(ZoneInfo("Europe/Berlin")).hour for moment in (first, second)] == [3, 3]
    assert second - first == timedelta(hours=24)
    assert first - next_due(NIGHTLY, "Europe/Berlin", autumn - timedelta(days=1)) == timedelta(hours=25)


crons = st.builds(
    lambda minute, hour: f"{minute} {hour} * * *",
    st.one_of(st.just("*"), st.integers(0, 59), st.just("*/20"), st.just("7,48")),
    st.one_of(st.just("*"), st.integers(0, 23), st.just("22-23")),
)
times = st.datetimes(datetime(2026, 3, 1), datetime(2026, 12, 1)).map(lambda moment: moment.replace(tzinfo=UTC))


@given(crons, times, st.integers(0, 3 * 24 * 60))
def test_the_due_night_is_the_last_of_those_that_come_one_after_the_other(
    cron: str, since: datetime, minutes: int
) -> None:
    now = since + timedelta(minutes=minutes)
    due, missed = last_due(cron, "UTC", since, now)
    walked = []
    while len(walked) <= 1001 and (after := next_due(cron, "UTC", walked[-1] if walked else since)) <= now:
        walked.append(after)
    if len(walked) <= 1000:
        assert due == (walked[-1] if walked else None)
        assert missed == max(0, len(walked) - 1)


@given(crons, st.sampled_from(["Asia/Kolkata", "Asia/Kathmandu", "America/New_York", "UTC"]), times)
def test_an_entry_in_another_zone_looks_at_every_minute_at_which_a_night_may_be_due(
    cron: str, zone: str, after: datetime
) -> None:
    due = next_due(cron, zone, after)
    looked = every_zone(cron)
    assert next_due(looked, "UTC", due - timedelta(minutes=1)) == due


def test_systemd_is_told_the_same() -> None:
    assert on_calendar("5,35 3 * * mon,7", "Europe/Berlin") == "Sun,Mon *-*-* 03:05,35:00 Europe/Berlin"
    assert on_calendar("0 */12 1-3 jan *", "UTC") == "*-01-01,02,03 00,12:00:00 UTC"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("cron", ["5,35 3 * * mon,7", "0 */12 1-3 jan *", "*/20 * * * *", "0 3 * * 1-5"])
def test_systemd_itself_finds_the_same_next_night(cron: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "calendar", on_calendar(cron, "UTC")], env={"TZ": "UTC", "LANG": "C"}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    shown = next(line for line in done.stdout.splitlines() if "Next elapse" in line)
    found = datetime.strptime(shown.split(": ", 1)[1].strip(), "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert found in (next_due(cron, "UTC", datetime.now(UTC) - timedelta(minutes=back)) for back in (0, 1))
