"""What a ladder means for a fleet of a given size: expected days on each rung, before anything starts.

The same tests that will decide are run on expected counts of an adapter exactly as good as its control: each device is
affected with a metric's daily hazard, counts once, and is then no longer at risk. The hour at which the expected log
e-value arrives is about the mean of the hours at which simulated ones do; most are faster, a few much slower.
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


def plan(ladder: Ladder, daily_devices: int, source: str, baseline: Mapping[str, float] | None = None) -> RolloutPlan:
    """Expected days on each rung of `ladder` for an adapter as good as what it replaces.

    Args:
        daily_devices: devices that report on a day; all of them are taken to report every day.
        source: where that number comes from, for the reader.
        baseline: daily shares by metric (`measure`), in place of DAILY_SHARES.
    """
    shares = {**DAILY_SHARES, **(baseline or {})}
    rungs: list[PlannedRung] = []
    fleet = _Fleet(ladder, shares)
    for place, rung in enumerate(ladder.rungs[:-1]):
        days, limited_by = fleet.climb(place, daily_devices * rung.percent / 100)
        rungs.append(PlannedRung(percent=rung.percent, days=days, limited_by=limited_by))
        if days is None:
            later = ladder.rungs[place + 1 : -1]
            rungs += [PlannedRung(percent=one.percent, days=None, limited_by=limited_by) for one in later]
            break
    rungs.append(PlannedRung(percent=100, days=0.0, limited_by="hold"))
    return RolloutPlan(ladder=ladder.rollout, daily_devices=daily_devices, source=source, rungs=rungs)


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
    """Expected counts in one arm, hour by hour, over the rungs climbed so far."""

    def __init__(self, ladder: Ladder, shares: Mapping[str, float]) -> None:
        self.ladder, self.shares = ladder, shares
        self.cohorts: list[tuple[int, float]] = []  # hour of entry, devices in each arm
        self.hour = 0

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
        new = np.zeros((len(self.cohorts), len(hours)))
        left = np.zeros_like(new)
        for row, (entry, devices) in enumerate(self.cohorts):
            # What happened until then counts in the hour in which a cohort has settled, or can first be called silent.
            age = hours - entry - delay
            started = (age >= 0) & (devices > 0)
            survived = np.exp(-hazard * np.maximum(age + delay, 0))
            before = np.where(age == 0, 1.0, np.exp(-hazard * np.maximum(age + delay - 1, 0)))
            new[row] = np.where(started, devices * (before - survived), 0.0)
            left[row] = np.where(started, devices * before, 0.0)
        log_e = noninferiority(Counts(new, 2 * new, left, 2 * left), 1 + (guardrail.max_ratio - 1) * loosen)
        affected = new.sum(axis=0).cumsum()
        seen = sum(np.where(hours >= entry + delay, devices, 0.0) for entry, devices in self.cohorts)
        bound = guardrail.negligible * loosen
        rare = np.array([log_e_rare(x, n, bound) for x, n in zip(affected[entered:], seen[entered:], strict=True)])
        found: np.ndarray = np.maximum(log_e[entered:], rare) >= certain
        return found
