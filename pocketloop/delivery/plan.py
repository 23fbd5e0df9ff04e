"""What a ladder means for a fleet of a given size: expected days on each rung, before anything starts.

The same tests that will decide are run on expected counts of an adapter exactly as good as its control: each device is
affected with a metric's daily hazard, counts once, and is then no longer at risk. The hour at which the expected log
e-value arrives is about the mean of the hours at which simulated ones do; most are faster, a few much slower: so the
plan also draws a few dozen such rollouts, and says within how many days nine in ten of them reach everybody.
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from pocketloop.contracts.rollout import Guardrail, Ladder, PlannedRung, Rollout, RolloutPlan, Rung
from pocketloop.delivery.observations import NEVER, SETTLE_HOURS, observe
from pocketloop.delivery.statistics import Counts, log_e_rare, noninferiority

DAILY_SHARES: dict[str, float] = {
    "crashes": 0.01,
    "reverts": 0.0,
    "fallbacks": 0.02,
    "thumbs_down": 0.01,
    "slow": 0.02,
    "silent": 0.02,
}
"""Share of active devices that a metric newly affects in a day, where nothing was measured: guesses, on the low side,
because few events make a long plan. `measure` finds a fleet's own."""
_HOUR = 1 / 24
_MEASURED_DAYS = 7
_LEAST_DEVICE_DAYS = 100
_DRAWS, _LATE = 40, 0.9


def plan(ladder: Ladder, daily_devices: int, source: str, baseline: Mapping[str, float] | None = None) -> RolloutPlan:
    """Expected days on each rung of `ladder` for an adapter as good as what it replaces.

    Args:
        daily_devices: devices that report on a day; all of them are taken to report every day.
        source: where that number comes from, for the reader.
        baseline: daily shares by metric (`measure`), in place of DAILY_SHARES.
    """
    shares = {**DAILY_SHARES, **(baseline or {})}
    rungs = _climbed(_Fleet(ladder, shares), daily_devices)
    planned = RolloutPlan(ladder=ladder.rollout, daily_devices=daily_devices, source=source, rungs=rungs)
    if planned.days is None:
        return planned
    rng = np.random.default_rng(0)
    drawn = [_climbed(_Fleet(ladder, shares, rng), daily_devices) for _ in range(_DRAWS)]
    totals = [sum(math.inf if rung.days is None else rung.days for rung in one) for one in drawn]
    late = float(np.quantile(totals, _LATE, method="higher"))
    return planned.model_copy(update={"late_days": late if math.isfinite(late) else None})


def _climbed(fleet: "_Fleet", daily_devices: int) -> list[PlannedRung]:
    """Each rung as this fleet climbs it; after one that takes too long, none is reached."""
    rungs: list[PlannedRung] = []
    ladder = fleet.ladder
    for place, rung in enumerate(ladder.rungs[:-1]):
        days, limited_by = fleet.climb(place, daily_devices * rung.percent / 100)
        rungs.append(PlannedRung(percent=rung.percent, days=days, limited_by=limited_by))
        if days is None:
            later = ladder.rungs[place + 1 : -1]
            rungs += [PlannedRung(percent=one.percent, days=None, limited_by=limited_by) for one in later]
            break
    return [*rungs, PlannedRung(percent=100, days=0.0, limited_by="hold")]


def measure(ladder: Ladder, telemetry: Path, adapter: str, base_digest: str, now: datetime) -> dict[str, float]:
    """Daily shares by metric of a channel's fleet as it is now: newly affected devices a device-day of its last week.

    The week is looked at as if a rollout had begun with it; the devices that it would have left alone are counted. A
    metric with less than a hundred device-days is left out.
    """
    began = now - timedelta(days=_MEASURED_DAYS)
    nothing = Rollout(
        rollout_id="measured",
        adapter=adapter,
        base_digest=base_digest,
        version="",
        released="",
        digest="0" * 64,
        previous=None,
        ladder=ladder.model_copy(update={"rungs": [Rung(percent=50), Rung(percent=100)]}),
        started=began,
        rung_started=began,
        rungs=[began],
    )
    observed = observe(nothing, telemetry, now)
    shares: dict[str, float] = {}
    for guardrail in ladder.guardrails:
        metric = guardrail.metric
        delay = ladder.silent_hours if metric == "silent" else 0.0
        affected = observed.affected[metric][~observed.canary].astype(float)
        joined = observed.joined[metric][~observed.canary] + delay
        days = float(np.maximum(np.minimum(affected, observed.hours) - joined, 0.0).sum() * _HOUR)
        if days >= _LEAST_DEVICE_DAYS:
            shares[metric] = -math.expm1(-float((affected < NEVER).sum()) / days)
    return shares


class _Fleet:
    """Counts in both arms, hour by hour, over the rungs climbed so far: expected ones, or drawn with `rng`."""

    def __init__(self, ladder: Ladder, shares: Mapping[str, float], rng: np.random.Generator | None = None) -> None:
        self.ladder, self.shares, self.rng = ladder, shares, rng
        self.cohorts: list[tuple[int, float]] = []  # hour of entry, devices in each arm
        self.hour = 0
        self.drawn: dict[tuple[str, int, int], np.ndarray] = {}

    def climb(self, place: int, arm: float) -> tuple[float | None, str]:
        """Days on this rung and what limits them."""
        rung, entered = self.ladder.rungs[place], self.hour
        self.cohorts.append((entered, arm - sum(devices for _, devices in self.cohorts)))
        if arm < self.ladder.min_devices:
            return None, "min_devices"
        most = math.floor(self.ladder.max_days * 24)
        least = max(1, math.ceil(rung.min_hours))
        certified = {g.metric: self._certified(g, rung.loosen, entered, most) for g in self.ladder.guardrails}
        ready = np.flatnonzero(np.logical_and.reduce(list(certified.values()))[least - 1 :])
        if not len(ready):
            return None, min(certified, key=lambda metric: int(certified[metric].sum()))
        hours = least + int(ready[0])
        self.hour = entered + hours
        if hours == least:
            return max(rung.min_hours, 0.0) * _HOUR, "hold"
        return hours * _HOUR, next(metric for metric in certified if not certified[metric][hours - 2])

    def _certified(self, guardrail: Guardrail, loosen: float, entered: int, most: int) -> np.ndarray:
        """Whether the guardrail is certified after 1, 2, ... `most` hours on this rung."""
        delay = math.ceil(self.ladder.silent_hours) if guardrail.metric == "silent" else SETTLE_HOURS
        hazard = -math.log1p(-min(self.shares[guardrail.metric], 0.999)) * _HOUR
        certain = -math.log1p(-self.ladder.confidence)
        hours = np.arange(entered + most)
        new = np.zeros((2, len(self.cohorts), len(hours)))
        left = np.zeros_like(new)
        for row, (entry, devices) in enumerate(self.cohorts):
            # What happened until then counts in the hour in which a cohort has settled, or can first be called silent.
            age = np.arange(max(0, len(hours) - entry - delay))
            gone = -np.expm1(-hazard * (age + delay))
            for arm in (0, 1):
                counted = self._affected(guardrail.metric, row, arm, devices, np.diff(gone, prepend=0.0))
                new[arm, row, entry + delay :] = counted
                left[arm, row, entry + delay :] = max(devices, 0.0) - (np.cumsum(counted) - counted)
        both = Counts(new[0], new.sum(axis=0), left[0], left.sum(axis=0))
        log_e = noninferiority(both, 1 + (guardrail.max_ratio - 1) * loosen)
        affected = new[0].sum(axis=0).cumsum()
        seen = np.sum([np.where(hours >= entry + delay, devices, 0.0) for entry, devices in self.cohorts], axis=0)
        rare = log_e_rare(affected[entered:], seen[entered:], guardrail.negligible * loosen)
        found: np.ndarray = np.maximum(log_e[entered:], rare) >= certain
        return found

    def _affected(self, metric: str, row: int, arm: int, devices: float, shares: np.ndarray) -> np.ndarray:
        """Devices of one arm of a cohort that a metric newly affects, by hour since they count; a draw stays."""
        if self.rng is None:
            return max(devices, 0.0) * shares
        key = metric, row, arm
        held = self.drawn.get(key, np.zeros(0))
        if len(held) < len(shares):
            rest = shares[len(held) :]
            at_risk = max(1 - float(shares[: len(held)].sum()), 1e-12)
            odds = np.append(rest / at_risk, max(0.0, 1 - float(rest.sum()) / at_risk))
            fresh = self.rng.multinomial(max(0, round(devices) - int(held.sum())), odds / odds.sum())[:-1]
            held = self.drawn[key] = np.concatenate([held, fresh])
        return held[: len(shares)]
