"""How tens of thousands of simulated devices behave, step by step, in arrays.

Devices differ: sessions a day are lognormal, crash rates gamma (few devices cause most crashes), shares of fallbacks
and thumbs beta, latencies lognormal. Each follows its channel's policy when it next asks, runs what it holds, counts,
and posts its counts; now and then it is away. One call advances all devices by one step, and everything in a step is
reported at its end.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from pocketloop.contracts.delivery import LATENCY_BOUNDS_MS, MILLION, bucket
from pocketloop.device.fleet_scenarios import START, Effect, Population

COUNTS = ("sessions", "crashes", "fallbacks", "thumbs_up", "thumbs_down", "reverts")
_SESSIONS, _CRASHES, _FALLBACKS, _UP, _DOWN, _REVERTS = range(len(COUNTS))
_LATENCY = len(COUNTS)
_NEVER = 1e9
OLD, NEW = 0, 1
"""What a device holds: the file that the channel served before the rollout, or the one that is rolled out."""


class Clock:
    """The one clock of a simulation; call it for the time."""

    def __init__(self) -> None:
        self.hours = 0.0

    def __call__(self) -> datetime:
        """The simulated time."""
        return moment(self.hours)


class Channel(NamedTuple):
    """The channel under simulation: what it served before, and what is rolled out (sha256 of the adapter files)."""

    adapter: str
    base_digest: str
    old: str | None
    new: str


def moment(hours: float) -> datetime:
    """The simulated time `hours` after START, to the second."""
    return START + timedelta(seconds=round(hours * 3600))


class Fleet:
    """The devices: fixed propensities, what each holds, and what it counted since its last report. Times are hours."""

    def __init__(self, population: Population, effects: Sequence[Effect], devices: int, seed: int) -> None:
        self.population, self.devices, self.seed = population, devices, seed
        self.rng = rng = np.random.default_rng(seed)
        self.ids = [f"sim-{seed}-{number:06d}" for number in range(devices)]
        self.app_versions, self.app_version = _drawn(rng, population.app_versions, devices)
        self.locales, self.locale = _drawn(rng, population.locales, devices)
        self.sessions_a_day = np.minimum(
            population.sessions_a_day * np.exp(population.sessions_spread * rng.standard_normal(devices)), 100.0
        )
        shape = population.crash_shape
        self.crash = np.minimum(rng.gamma(shape, population.crashes_a_session / shape, devices), 0.9)
        self.fallback = _shares(rng, population.fallbacks, population.concentration, devices)
        self.rated = _shares(rng, population.rated, population.concentration, devices)
        self.down = _shares(rng, population.thumbs_down, population.concentration, devices)
        self.log_latency = np.log(population.latency_ms) + population.latency_spread * rng.standard_normal(devices)
        self.next_sync = rng.uniform(0, population.sync_hours, devices)
        self.next_report = rng.uniform(0, population.report_hours, devices)
        self.away_until = np.zeros(devices)
        self.holds = np.zeros(devices, dtype=np.int8)
        self.took = np.zeros(devices)
        self.refused = np.zeros(devices, dtype=bool)
        """Devices that went back from the new file by themselves, for good."""
        self.mute = np.zeros(devices, dtype=bool)
        """Devices whose crash took their telemetry with it."""
        self.generation = np.zeros(devices, dtype=np.int64)
        self.counts = np.zeros((devices, _LATENCY + len(LATENCY_BOUNDS_MS) + 1), dtype=np.int64)
        self.since = np.zeros(devices)
        self.posted = np.zeros(devices, dtype=np.int64)
        self._effects = [(effect, self._segment(effect)) for effect in effects]
        self._buckets: dict[str, np.ndarray] = {}
        self._prefixes: list[str] | None = None

    def present(self, now: float) -> np.ndarray:
        """Which devices are switched on and online."""
        return self.away_until <= now

    def leave(self, now: float, hours: float) -> None:
        """Let some of the present devices go away for a while."""
        leaves = self.rng.random(self.devices) < -np.expm1(-self.population.leaves_a_day * hours / 24)
        lasts = np.minimum(self.rng.exponential(size=self.devices), 4.0) * self.population.away_hours
        self.away_until = np.where(leaves & self.present(now), now + lasts, self.away_until)

    def asking(self, now: float) -> np.ndarray:
        """Indices of the present devices whose next sync is due."""
        due = np.flatnonzero(self.present(now) & (self.next_sync <= now))
        every = self.population.sync_hours
        self.next_sync[due] += every * np.floor((now - self.next_sync[due]) / every + 1)
        return due

    def in_canary(self, salt: str, ppm: int) -> np.ndarray:
        """Which devices' buckets lie below `ppm`."""
        if salt not in self._buckets:
            self._buckets = {salt: np.array([bucket(salt, device) for device in self.ids])}
        return self._buckets[salt] < min(ppm, MILLION)

    def swaps(self, asking: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Which of `asking` will change their file when `wanted` (OLD or NEW for each of them) is followed."""
        return asking[self.holds[asking] != np.where(self.refused[asking], OLD, wanted)]

    def follow(self, asking: np.ndarray, wanted: np.ndarray, generation: int, now: float) -> None:
        """Give `asking` what they want; a device that refused the new file keeps the old one."""
        changing = self.swaps(asking, wanted)
        self.holds[changing] = OLD + NEW - self.holds[changing]
        self.took[changing] = now
        self.mute[changing] = False
        self.generation[asking] = generation

    def use(self, now: float, hours: float) -> None:
        """Everybody present uses the app for `hours` until `now`: sessions and what happens in them are counted.

        A device on the new file that crashes three times in a row goes back by itself (`leave_loops`). Its k crashes in
        s sessions hold k(k-1)(k-2) / (s(s-1)) such triples on average; that is taken for the chance of one.
        """
        rng, people = self.rng, self.population
        rate = np.where(self.present(now), self.sessions_a_day * hours / 24, 0.0)
        crash, fallback, down, shift, mutes = self._propensities(now)
        sessions = rng.poisson(rate)
        crashes = rng.binomial(sessions, crash)
        fallbacks = rng.binomial(sessions, fallback)
        rated = rng.binomial(sessions, self.rated)
        downs = rng.binomial(rated, down)
        counts = self.counts
        counts[:, _SESSIONS] += sessions
        counts[:, _CRASHES] += crashes
        counts[:, _FALLBACKS] += fallbacks
        counts[:, _DOWN] += downs
        counts[:, _UP] += rated - downs
        below = ndtr((np.log(LATENCY_BOUNDS_MS) - (self.log_latency + shift)[:, None]) / people.latency_jitter)
        shares = np.diff(below, prepend=0.0, append=1.0)
        counts[:, _LATENCY:] += rng.multinomial(sessions * people.answers_a_session, shares)
        self.mute |= mutes & (crashes > 0)
        triples = crashes * (crashes - 1.0) * (crashes - 2.0) / np.maximum(sessions * (sessions - 1.0), 1.0)
        looping = (rng.random(self.devices) < triples) & (self.holds == NEW)
        counts[looping, _REVERTS] += 1
        counts[self.mute] = 0
        self.refused |= looping
        self.next_report[looping] = now

    def reporting(self, now: float) -> np.ndarray:
        """Indices of the present devices whose next report is due; a mute device reports nothing."""
        due = np.flatnonzero(self.present(now) & (self.next_report <= now))
        every = self.population.report_hours
        self.next_report[due] += every * np.floor((now - self.next_report[due]) / every + 1)
        return due[~self.mute[due]]

    def leave_loops(self, now: float) -> None:
        """Devices that refused the new file and still hold it take the old one."""
        going = np.flatnonzero(self.refused & (self.holds == NEW))
        self.holds[going] = OLD
        self.took[going] = now
        self.mute[going] = False

    def reports(self, which: np.ndarray, now: float, channel: Channel) -> Iterator[str]:
        """The reports of these devices as JSON objects; their counts start again from zero.

        They are written by hand from arrays, ten times faster than through pydantic: the collector validates them.
        """
        if self._prefixes is None:
            self._prefixes = [self._prefix(number, channel) for number in range(self.devices)]
        digests = [f'"{digest}"' if digest else "null" for digest in (channel.old, channel.new)]
        starts = {hours: moment(hours).isoformat() for hours in np.unique(self.since[which]).tolist()}
        end = moment(now).isoformat()
        self.posted[which] += 1
        columns: tuple[list[Any], ...] = tuple(
            array[which].tolist() for array in (self.posted, self.since, self.holds, self.generation)
        )
        rows = self.counts[which].tolist()
        self.counts[which] = 0
        self.since[which] = now
        prefixes = self._prefixes
        for number, post, since, holds, generation, row in zip(which.tolist(), *columns, rows, strict=True):
            named = ",".join(f'"{name}":{count}' for name, count in zip(COUNTS, row, strict=False))
            yield (
                f'{prefixes[number]}.{post}","start":"{starts[since]}","end":"{end}","digest":{digests[holds]},'
                f'"generation":{generation},{named},"latency":{row[_LATENCY:]}}}'
            )

    def _propensities(self, now: float) -> tuple[np.ndarray, ...]:
        crash, fallback, down = self.crash.copy(), self.fallback.copy(), self.down.copy()
        shift, mutes = np.zeros(self.devices), np.zeros(self.devices, dtype=bool)
        age = np.where(self.holds == NEW, now - self.took, -_NEVER)
        for effect, segment in self._effects:
            hit = segment & (age >= effect.from_hours) & (age < effect.until_hours)
            crash[hit] = np.minimum(crash[hit] * effect.crashes, 0.9)
            fallback[hit] = _by_odds(fallback[hit], effect.fallbacks)
            down[hit] = _by_odds(down[hit], effect.thumbs_down)
            shift[hit] += np.log(effect.latency)
            mutes |= hit & effect.crash_ends_telemetry
        return crash, fallback, down, shift, mutes

    def _segment(self, effect: Effect) -> np.ndarray:
        chosen = np.ones(self.devices, dtype=bool)
        if effect.app_version is not None:
            chosen &= self.app_version == self.app_versions.index(effect.app_version)
        if effect.locale is not None:
            chosen &= self.locale == self.locales.index(effect.locale)
        return chosen

    def _prefix(self, number: int, channel: Channel) -> str:
        return (
            f'{{"device_id":"{self.ids[number]}","app_version":"{self.app_versions[self.app_version[number]]}",'
            f'"locale":"{self.locales[self.locale[number]]}","adapter":"{channel.adapter}",'
            f'"base_digest":"{channel.base_digest}","report_id":"{self.ids[number]}'
        )


def _drawn(rng: np.random.Generator, shares: dict[str, float], count: int) -> tuple[list[str], np.ndarray]:
    weights = np.array(list(shares.values()), dtype=float)
    return list(shares), rng.choice(len(weights), size=count, p=weights / weights.sum())


def _shares(rng: np.random.Generator, mean: float, concentration: float, count: int) -> np.ndarray:
    """A share for each device: beta with this mean; a mean of 0 or 1 is everybody's."""
    if mean in (0.0, 1.0):
        return np.full(count, mean)
    return rng.beta(mean * concentration, (1 - mean) * concentration, count)


def _by_odds(share: np.ndarray, factor: float) -> np.ndarray:
    return share * factor / (1 - share + share * factor)
