"""How often a harmless canary is taken back, and how soon a harmful one: this project's test beside a naive z-test.

The naive test compares crashes per session of the two arms and is looked at as often as ours: every hour for four weeks
where harmlessness is at stake, every six hours where speed is. Three fleets: devices that are all alike; the same with
rare crashes; and one in which few devices cause most crashes (gamma rates, shape 0.05), as in real fleets.

    python benchmarks/canary.py [--runs 2000] [--json]
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from pocketloop.delivery.statistics import Counts, harm, log_e_binomial

HOURS = 28 * 24
ALPHA = 0.05
SPLIT = ALPHA / 6 / 2
"""What one of six guardrails has for the whole fleet; the other half is for segments."""
SESSIONS = 4.0  # a device and day
Z = 1.6449  # one-sided 5 %


@dataclass
class Fleet:
    """Devices in each arm, and the daily rate of crashes of each device of one arm."""

    name: str
    devices: int
    rates: Callable[[np.random.Generator, int], np.ndarray]


FLEETS = [
    Fleet("all alike, 2 % a day", 1000, lambda draw, n: np.full(n, 0.02)),
    Fleet("all alike, 0.1 % a day", 1000, lambda draw, n: np.full(n, 0.001)),
    Fleet("few cause most crashes", 1000, lambda draw, n: draw.gamma(0.05, 0.4, n)),
]


def one_arm(draw: np.random.Generator, fleet: Fleet, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Newly affected devices, and crashes in sessions, by hour."""
    rates = fleet.rates(draw, fleet.devices) * ratio / 24
    first = np.minimum(draw.exponential(1, fleet.devices) / np.maximum(rates, 1e-12), HOURS).astype(int)
    return np.bincount(first, minlength=HOURS + 1)[:HOURS], draw.poisson(rates.sum(), HOURS)


def tested(draw: np.random.Generator, fleet: Fleet, runs: int, ratio: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Log e-value and z by hour, each of shape (runs, HOURS)."""
    log_e, z = [], []
    for start in range(0, runs, 100):
        arms = [[one_arm(draw, fleet, one) for one in (ratio, 1.0)] for _ in range(min(100, runs - start))]
        new = np.array([[arm[0] for arm in pair] for pair in arms], dtype=float)
        left = fleet.devices - new.cumsum(axis=2) + new
        shape = (len(arms), 1, HOURS)
        parts = (new[:, 0], new.sum(axis=1), left[:, 0], left.sum(axis=1))
        log_e.append(harm(Counts(*(part.reshape(shape) for part in parts))))
        crashes = np.array([[arm[1] for arm in pair] for pair in arms]).cumsum(axis=2)
        sessions = fleet.devices * SESSIONS / 24 * np.arange(1, HOURS + 1)
        pooled = crashes.sum(axis=1) / (2 * sessions)
        error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * 2 / sessions)
        z.append((crashes[:, 0] - crashes[:, 1]) / sessions / error)
    return np.concatenate(log_e), np.concatenate(z)


def interval(share: np.ndarray) -> dict[str, float]:
    """A share with its exact 95 % interval."""
    found = binomtest(int(share.sum()), len(share)).proportion_ci(0.95, "exact")
    return {"share": float(share.mean()), "low": float(found.low), "high": float(found.high)}


def false_rollbacks(draw: np.random.Generator, runs: int) -> list[dict[str, Any]]:
    """Harmless canaries that are taken back within four weeks of hourly looks."""
    rows: list[dict[str, Any]] = []
    for fleet in FLEETS:
        log_e, z = tested(draw, fleet, runs)
        rows.append(
            {
                "fleet": fleet.name,
                "e-process": interval((log_e >= -math.log(ALPHA)).any(axis=1)),
                "z-test, hourly": interval((z[:, 24:] >= Z).any(axis=1)),
                "z-test, one look": interval(z[:, -1] >= Z),
            }
        )
    return rows


def detection(draw: np.random.Generator, runs: int) -> list[dict[str, Any]]:
    """Looks, every six hours, until 3 % instead of 2 % of the devices a day is found."""
    rows: list[dict[str, Any]] = []
    for devices in (1000, 5000, 10_000):
        fleet = Fleet("", devices, FLEETS[0].rates)
        log_e, _ = tested(draw, fleet, runs, 1.5)
        row: dict[str, Any] = {"devices an arm": devices}
        for name, alpha in (("alone", ALPHA), ("of six guardrails", SPLIT)):
            found = log_e[:, 5::6] >= -math.log(alpha)
            looks = np.where(found.any(axis=1), found.argmax(axis=1) + 1, HOURS)
            row[name] = {"median": float(np.median(looks)), "p90": float(np.quantile(looks, 0.9))}
        rows.append(row)
    return rows


def sample_ratio(draw: np.random.Generator, runs: int) -> dict[str, Any]:
    """Looks, every six hours, until arms of 47 to 53 are found unequal; how often equal arms are called that."""

    def looks(share: float, arrivals: int, count: int) -> np.ndarray:
        new = np.full((runs, count), arrivals)
        canary = draw.binomial(new, share).cumsum(axis=1)
        both = new.cumsum(axis=1)
        return np.array(
            [
                [log_e_binomial(int(k), int(n), 0.5) >= math.log(1000) for k, n in zip(*row, strict=True)]
                for row in zip(canary, both, strict=True)
            ]
        )

    found = looks(0.47, 2500, 8)
    return {
        "devices heard from a look": 2500,
        "median looks": float(np.median(np.where(found.any(axis=1), found.argmax(axis=1) + 1, 99))),
        "false": interval(looks(0.5, 400, 112).any(axis=1)),
    }


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    draw = np.random.default_rng(options.seed)
    harmless = false_rollbacks(draw, options.runs)
    speed = detection(draw, max(50, options.runs // 5))
    ratio = sample_ratio(draw, max(50, options.runs // 5))
    if options.json:
        print(json.dumps({"false_rollbacks": harmless, "detection": speed, "sample_ratio": ratio}))
        return
    print(f"harmless canaries taken back, {HOURS} hourly looks, {options.runs} rollouts each (alpha {ALPHA:g})")
    tests = ("e-process", "z-test, hourly", "z-test, one look")
    print(f"  {'':24}" + "".join(f"{name:>28}" for name in tests) + "   hourly z / e")
    for row in harmless:
        cells = [row[name] for name in tests]
        times = cells[1]["share"] / max(cells[0]["share"], 1 / options.runs)
        print(f"  {row['fleet']:24}" + "".join(f"{_share(cell):>28}" for cell in cells) + f"{times:>15.0f}")
    print("6-hourly looks until 3 % instead of 2 % of the devices a day is found (median, 90th percentile)")
    for found in speed:
        alone, split = found["alone"], found["of six guardrails"]
        print(
            f"  {found['devices an arm']:>6,} devices an arm   alone {_looks(alone)}, of six guardrails {_looks(split)}"
        )
    print(
        f"arms of 47 to 53, {ratio['devices heard from a look']:,} devices heard from a look: found after "
        f"{ratio['median looks']:.0f} looks; equal arms called unequal in 112 looks: {_share(ratio['false'])}"
    )


def _share(found: dict[str, float]) -> str:
    return f"{found['share']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


def _looks(found: dict[str, float]) -> str:
    return f"{found['median']:.0f} ({found['p90']:.0f})"


if __name__ == "__main__":
    main()
