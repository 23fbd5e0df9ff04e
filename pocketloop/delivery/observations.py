"""What the telemetry says about a rollout's devices: who is in which arm, since when, and when each was first affected.

Arms are intention to treat: they come from the device's id and the rollout's salt, never from what a report claims. A
device counts from the start of the first rung at which its bucket is canary or control.

Reports must not come sooner from one arm than from the other, or that arm looks worse. A canary device may post its old
counts when it changes files, and its control twin does not: so a canary device's report about another file waits for
that device's next one. And until everybody has asked for the new policy, canary reports wait more often: so what
happens in a device's first SETTLE_HOURS counts at their end, in both arms.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketloop.contracts.delivery import LATENCY_BOUNDS_MS, MILLION
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.rollout import Ladder, Rollout
from pocketloop.delivery.telemetry import database, naive_utc, report_files, schema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NEVER = np.iinfo(np.int32).max
"""Hour of what has not happened."""
KNOWN_DAYS = 7
"""A device belongs to the fleet if it reported this many days before the rollout, or since."""
SETTLE_HOURS = 24
"""Devices ask for their policy and post their counts at least this often."""
_BEFORE = KNOWN_DAYS * 24
_OUTAGE_HOURS = 12
"""When nobody at all reports for longer, it is the collector that is silent, not the devices."""

_BAD = {  # metric: bad events, of how many
    "crashes": ("crashes", "sessions"),
    "reverts": ("reverts", "sessions"),
    "fallbacks": ("fallbacks", "sessions"),
    "thumbs_down": ("thumbs_down", "thumbs_up + thumbs_down"),
    "slow": ("slow", "answers"),
}

# Asked first, because finding nothing to drop is ten times cheaper than dropping nothing.
_REPEATED = "SELECT count(*) > count(DISTINCT hash(device_id, report_id)) FROM {source}"
_REPORTS = """
CREATE TEMP TABLE reports AS
SELECT {distinct}
    device_id, hash(report_id) AS report, digest, "end", hour_of("end") AS hour, app_version, locale,
    sessions, crashes, fallbacks, thumbs_up, thumbs_down, reverts,
    list_sum(latency) AS answers, coalesce(list_sum(latency[$slow_from:]), 0) AS slow
FROM {source}
WHERE adapter = $adapter AND base_digest = $base AND "end" > $since AND "end" <= $now
"""
# A device's place is its distance from the nearer end: the canary grows from the bottom, its control from the top.
_DEVICES = """
CREATE TEMP TABLE devices AS
WITH placed AS (
    SELECT device_id, ('0x' || substr(sha256($salt || ':' || device_id), 1, 8))::BIGINT % $million AS bucket
    FROM (SELECT DISTINCT device_id FROM reports)
)
SELECT row_number() OVER (ORDER BY device_id) - 1 AS device, device_id, bucket * 2 < $million AS canary,
    rung.cohort AS cohort, rung.started AS entered
FROM placed ASOF JOIN rungs AS rung ON least(bucket, $million - 1 - bucket) < rung.ppm
"""
_ENROLLED = """
CREATE TEMP TABLE enrolled AS
SELECT reports.* EXCLUDE (device_id, report), device, canary, cohort, entered,
    lead("end") OVER one AS next_end, lead(hour) OVER one AS next_hour
FROM reports JOIN devices USING (device_id)
WINDOW one AS (PARTITION BY device ORDER BY "end", report)
"""
_SPANS = """
SELECT device, any_value(canary) AS canary, any_value(cohort) AS cohort, min("end" > entered) AS new,
    max(hour) AS last, coalesce(min(hour) FILTER ("end" > entered), $never) AS first_after,
    coalesce(arg_max(app_version, "end") FILTER ("end" <= entered), arg_min(app_version, "end")) AS app_version,
    coalesce(arg_max(locale, "end") FILTER ("end" <= entered), arg_min(locale, "end")) AS locale
FROM enrolled GROUP BY device ORDER BY device
"""
_AFFECTED = """
WITH counted AS (
    SELECT *, CASE WHEN canary AND digest IS DISTINCT FROM $digest THEN next_end ELSE "end" END AS known
    FROM enrolled WHERE "end" > entered
), summed AS (
    SELECT device, known, {sums} FROM counted WHERE known IS NOT NULL
    WINDOW so_far AS (PARTITION BY device ORDER BY known RANGE UNBOUNDED PRECEDING)
)
SELECT device, hour_of(min(known)) AS heard, {firsts} FROM summed GROUP BY device
"""
_GAPS = """
SELECT device, "end" <= entered AS before, hour, coalesce(next_hour, $never) AS next FROM enrolled
WHERE coalesce(next_end > entered, true) AND ("end" <= entered OR coalesce(next_hour - hour, $never) > $hours)
"""
_LARGEST = """
SELECT value FROM (
    SELECT coalesce(arg_max({kind}, "end") FILTER (hour < 0), arg_min({kind}, "end")) AS value,
        min(hour) < 0 AS before, min("end") AS first
    FROM reports GROUP BY device_id
)
WHERE value <> '' GROUP BY value ORDER BY count(*) FILTER (before) DESC, min(first), value LIMIT $most
"""


@dataclass(frozen=True)
class Observations:
    """Devices of both arms as arrays of equal length, one entry a device; times are hours since the rollout's start."""

    hours: int
    """Hours that the rollout has lasted, the current one included."""
    canary: np.ndarray
    cohort: np.ndarray
    """Index of the rung at which the device entered."""
    entered: np.ndarray
    """Hour at which that rung began."""
    heard: np.ndarray
    """First report that is about the time since then."""
    last: np.ndarray
    """Last report of any kind; negative: before the rollout."""
    joined: dict[str, np.ndarray]
    """By metric: when the device was first at risk."""
    affected: dict[str, np.ndarray]
    """By metric: when it was first affected."""
    segments: dict[str, np.ndarray]
    """Which devices belong to `locale=de-DE`, for the segments that were largest before the rollout."""

    def heard_devices(self, canary: bool) -> int:
        """Devices of an arm that reported since they entered."""
        return int((self.heard[self.canary == canary] < NEVER).sum())

    def recent_devices(self, canary: bool, hours: float) -> int:
        """Devices of an arm that reported within the last `hours`."""
        return int((self.last[self.canary == canary] >= self.hours - hours).sum())


def observe(rollout: Rollout, telemetry: Path, now: datetime) -> Observations:
    """Read what has been reported up to `now` about a running rollout's devices.

    Args:
        telemetry: the dataset of `delivery.telemetry`.
        now: aware; later reports (a phone's clock may be ahead) do not count yet.
    """
    ladder, start = rollout.ladder, rollout.started
    metrics = [guardrail.metric for guardrail in ladder.guardrails]
    since = start - timedelta(days=KNOWN_DAYS)
    rungs = [(ladder.rungs[cohort].ppm, began) for cohort, began in enumerate(rollout.rungs)]
    entries = np.array([_hour(began, start) for _, began in rungs], dtype=np.int32)
    hours = _hour(now, start) + 1
    with database() as connection:
        _load(connection, rollout, report_files(telemetry, since - timedelta(days=1)), since, now, rungs)
        spans = connection.execute(_SPANS, {"never": int(NEVER)}).fetchnumpy()
        devices = len(spans["device"])
        firsts = _firsts(connection, rollout)
        gaps = connection.execute(_GAPS, {"never": int(NEVER), "hours": ceil(ladder.silent_hours)}).fetchnumpy()
        live = _live_hours(connection, hours)
        names = {
            kind: connection.execute(_LARGEST.format(kind=kind), {"most": ladder.max_segments}).fetchall()
            for kind in ladder.segments
        }
    entered = entries[spans["cohort"]]
    times = {name: _spread(firsts["device"], firsts[name], devices) for name in firsts if name != "device"}
    heard = times.pop("heard")
    times = {metric: _settled(hour, entered, hours) for metric, hour in times.items()}
    joined = {metric: np.where(spans["new"], _settled(heard, entered, hours), entered) for metric in times}
    if "silent" in metrics:
        recent, times["silent"] = _silent(gaps, entered, live, ceil(ladder.silent_hours))
        joined["silent"] = np.where(recent, entered, spans["first_after"])
    return Observations(
        hours=hours,
        canary=spans["canary"].astype(bool),
        cohort=spans["cohort"].astype(np.int32),
        entered=entered,
        heard=heard,
        last=spans["last"].astype(np.int32),
        joined=joined,
        affected=times,
        segments={f"{kind}={name}": spans[kind] == name for kind, found in names.items() for (name,) in found},
    )


def _load(
    connection: "DuckDBPyConnection",
    rollout: Rollout,
    files: list[str],
    since: datetime,
    now: datetime,
    rungs: list[tuple[int, datetime]],
) -> None:
    """Make the tables `reports` (of the whole channel) and `enrolled` (of both arms' devices)."""
    start = naive_utc(rollout.started)
    connection.execute(
        "CREATE TEMP MACRO hour_of(moment) AS"
        f" CAST(floor((epoch_us(moment) - epoch_us(TIMESTAMP '{start}')) / 3600000000) AS INTEGER)"
    )
    connection.execute("CREATE TEMP TABLE rungs (cohort INTEGER, ppm INTEGER, started TIMESTAMP)")
    for cohort, (ppm, began) in enumerate(rungs):
        connection.execute("INSERT INTO rungs VALUES (?, ?, ?)", [cohort, ppm, naive_utc(began)])
    if not files:
        connection.register("nothing", schema().empty_table())
    source = "read_parquet($files, hive_partitioning = false)" if files else "nothing"
    values = {
        "adapter": rollout.adapter,
        "base": rollout.base_digest,
        "since": naive_utc(since),
        "now": naive_utc(now),
        "slow_from": slow_from(rollout.ladder),
    }
    named = {"files": files} if files else {}
    [repeated] = connection.execute(_REPEATED.format(source=source), named).fetchone() or [False]
    distinct = "DISTINCT ON (device_id, report_id)" if repeated else ""
    connection.execute(_REPORTS.format(source=source, distinct=distinct), values | named)
    connection.execute(_DEVICES, {"salt": rollout.rollout_id, "million": MILLION})
    connection.execute(_ENROLLED)


def _firsts(connection: "DuckDBPyConnection", rollout: Rollout) -> dict[str, np.ndarray]:
    """Columns `device`, `heard`, and for each metric of counts the hour at which the device was first affected."""
    sums, firsts = [], []
    values: dict[str, str | float] = {"digest": rollout.digest}
    for guardrail in rollout.ladder.guardrails:
        if guardrail.metric not in _BAD:
            continue
        metric, (bad, total) = guardrail.metric, _BAD[guardrail.metric]
        # A crash before the first session is complete still happened in one.
        sums.append(f"sum({bad}) OVER so_far AS {metric}_bad")
        sums.append(f"greatest(sum({bad}) OVER so_far, sum({total}) OVER so_far) AS {metric}_all")
        firsts.append(
            f"coalesce(hour_of(min(known) FILTER ({metric}_bad > $limit_{metric} * {metric}_all"
            f" AND {metric}_all >= $least_{metric})), {NEVER}) AS {metric}"
        )
        values |= {f"limit_{metric}": guardrail.limit, f"least_{metric}": guardrail.at_least}
    query = _AFFECTED.format(sums=", ".join(sums) or "NULL AS nothing", firsts=", ".join(firsts) or "NULL AS nothing")
    found: dict[str, np.ndarray] = connection.execute(query, values).fetchnumpy()
    found.pop("nothing", None)
    return found


def _silent(
    gaps: dict[str, np.ndarray], entered: np.ndarray, live: np.ndarray, patience: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which devices reported shortly before they entered, and when each had been silent for `patience` hours.

    Silence is counted from a report, or from the entry for a device that reported within `patience` hours before it; in
    hours of `live`, so that an outage of the collector silences nobody.
    """
    device, entry = gaps["device"], entered[gaps["device"]]
    at = live[gaps["hour"] + _BEFORE]
    from_entry = live[entry + _BEFORE]
    counts = ~gaps["before"].astype(bool) | (from_entry - at <= patience)
    recent = np.zeros(len(entered), dtype=bool)
    recent[device[counts & gaps["before"].astype(bool)]] = True
    due = np.maximum(at, np.where(gaps["before"], from_entry, at)) + patience
    last = np.minimum(gaps["next"], len(live) - 1 - _BEFORE) + _BEFORE
    gone = counts & np.where(gaps["next"] == NEVER, live[last] >= due, live[last] > due)
    affected = np.full(len(entered), NEVER, dtype=np.int32)
    np.minimum.at(affected, device[gone], np.searchsorted(live, due[gone]).astype(np.int32) - _BEFORE)
    return recent, affected


def _live_hours(connection: "DuckDBPyConnection", hours: int) -> np.ndarray:
    """How many hours the collector had lived by each hour, from KNOWN_DAYS before the start until now.

    When nobody at all reports for longer than _OUTAGE_HOURS, that time does not count.
    """
    rows = connection.execute("SELECT DISTINCT hour FROM reports").fetchnumpy()["hour"]
    seen = np.unique(np.concatenate([rows.astype(np.int64), [-_BEFORE, hours - 1]])) + _BEFORE
    lives = np.ones(hours + _BEFORE, dtype=np.int64)
    for gap in np.flatnonzero(np.diff(seen) > _OUTAGE_HOURS):
        lives[seen[gap] + 1 : seen[gap + 1] + 1] = 0
    return np.cumsum(lives)


def _spread(device: np.ndarray, hour: np.ndarray, devices: int) -> np.ndarray:
    out = np.full(devices, NEVER, dtype=np.int32)
    out[device] = hour
    return out


def _settled(hour: np.ndarray, entered: np.ndarray, hours: int) -> np.ndarray:
    """Hours at which what happened counts: not before the device has settled, and NEVER if that is still to come."""
    counts = np.maximum(hour, entered + SETTLE_HOURS)
    return np.where(counts < hours, counts, NEVER)


def _hour(moment: datetime, start: datetime) -> int:
    return (moment - start) // timedelta(hours=1)


def slow_from(ladder: Ladder) -> int:
    """1-based index of the first bucket of the latency histogram that counts as slow."""
    if ladder.slow_ms not in LATENCY_BOUNDS_MS:
        bounds = ", ".join(str(bound) for bound in LATENCY_BOUNDS_MS)
        raise ConfigError(f"ladder {ladder.rollout}: slow_ms {ladder.slow_ms} must be one of {bounds}")
    return LATENCY_BOUNDS_MS.index(ladder.slow_ms) + 2
