import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketloop.contracts.delivery import ChannelPolicy, TelemetryReport
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.rollout import Guardrail, Ladder, Rollout, Rung
from pocketloop.delivery.decide import judge, log_e_sample_ratio
from pocketloop.delivery.observations import NEVER, Observations, observe
from pocketloop.delivery.telemetry import write_reports

START = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
NEW, OLD, BASE = "a" * 64, "c" * 64, "b" * 64
GUARDRAILS = [
    Guardrail(metric="crashes"),
    Guardrail(metric="fallbacks", limit=0.3, at_least=10),
    Guardrail(metric="thumbs_down", limit=0.5, at_least=3),
    Guardrail(metric="slow", limit=0.2, at_least=20),
    Guardrail(metric="silent"),
]


def hours(number: float) -> datetime:
    return START + timedelta(hours=number)


def rollout(*entries: float, percents: tuple[float, ...] = (10, 30, 50, 100), **changes: Any) -> Rollout:
    ladder = Ladder(rollout="test", rungs=[Rung(percent=p) for p in percents], guardrails=GUARDRAILS, **changes)
    return Rollout(
        rollout_id="functions-1",
        adapter="functions",
        base_digest=BASE,
        version="1",
        released="1",
        digest=NEW,
        previous=OLD,
        ladder=ladder,
        started=START,
        rung=len(entries) - 1,
        rung_started=hours(entries[-1]),
        rungs=[hours(entry) for entry in entries],
    )


def report(device: str, end: float, number: int = 0, **changes: Any) -> TelemetryReport:
    made: dict[str, Any] = {
        "report_id": f"{device}-{end}-{number}",
        "device_id": device,
        "start": hours(end - 1),
        "end": hours(end),
        "adapter": "functions",
        "digest": OLD,
        "base_digest": BASE,
        "sessions": 5,
    }
    return TelemetryReport.model_validate(made | changes)


def policy(percent: float) -> ChannelPolicy:
    return ChannelPolicy(
        adapter="functions",
        base_digest=BASE,
        generation=1,
        canary=NEW,
        canary_ppm=round(percent * 10_000),
        salt="functions-1",
        updated=START,
    )


def devices(arm: str, count: int, percent: float = 50, prefix: str = "d") -> list[str]:
    found = (name for name in (f"{prefix}{n}" for n in range(10**6)) if policy(percent).arm(name) == arm)
    return [next(found) for _ in range(count)]


def seen(folder: Path, reports: list[TelemetryReport], now: float, *entries: float, **changes: Any) -> Observations:
    write_reports(folder, reports, hours(now))
    return observe(rollout(*(entries or (0,)), percents=(50, 100), **changes), folder, hours(now))


def random_reports(seed: int, count: int) -> list[TelemetryReport]:
    draw = random.Random(seed)
    made = []
    for number in range(count):
        end = draw.uniform(-150, 200)
        device = f"d{draw.randrange(60)}"
        changes = {
            "digest": draw.choice([OLD, NEW, None]),
            "crashes": int(draw.random() < 0.1),
            "fallbacks": draw.randrange(5),
            "thumbs_up": draw.randrange(2),
            "thumbs_down": draw.randrange(3),
            "latency": [draw.randrange(6) for _ in range(9)],
            "locale": draw.choice(["de-DE", "en-US", ""]),
        }
        made.append(report(device, end, number, **changes))
    return made + draw.sample(made, count // 10)


def by_hand(plan: Rollout, reports: list[TelemetryReport], now: datetime) -> dict[str, dict[str, Any]]:
    """The definitions, device by device, in plain Python."""
    known = {(r.device_id, r.report_id): r for r in reports if START - timedelta(days=7) < r.end <= now}
    out: dict[str, dict[str, Any]] = {}
    for device in {key[0] for key in known}:
        arms = [policy(rung.percent).arm(device) for rung in plan.ladder.rungs[: len(plan.rungs)]]
        cohort = next((n for n, arm in enumerate(arms) if arm != "stable"), None)
        if cohort is None:
            continue
        entered = plan.rungs[cohort]
        own = sorted((r for r in known.values() if r.device_id == device), key=lambda r: (r.end, r.report_id))
        after = []
        for place, r in enumerate(own):
            moment = r.end
            if arms[cohort] == "canary" and r.digest != NEW:
                if place + 1 == len(own):
                    continue
                moment = own[place + 1].end
            if r.end > entered:
                after.append((moment, r))
        after.sort(key=lambda pair: pair[0])
        found: dict[str, Any] = {"canary": arms[cohort] == "canary", "cohort": cohort}
        found["heard"] = hour(after[0][0]) if after else NEVER
        for guardrail in plan.ladder.guardrails:
            if guardrail.metric == "silent":
                continue
            found[guardrail.metric] = NEVER
            for moment, _ in after:
                bad = total = 0
                for other, r in after:
                    if other <= moment:
                        one, of = events(r, guardrail.metric)
                        bad, total = bad + one, total + of
                total = max(bad, total)
                if bad > guardrail.limit * total and total >= guardrail.at_least:
                    counts = max(hour(moment), hour(entered) + 24)
                    found[guardrail.metric] = counts if counts <= hour(now) else NEVER
                    break
        out[device] = found
    return out


def events(r: TelemetryReport, metric: str) -> tuple[int, int]:
    return {
        "crashes": (r.crashes, r.sessions),
        "fallbacks": (r.fallbacks, r.sessions),
        "thumbs_down": (r.thumbs_down, r.thumbs_up + r.thumbs_down),
        "slow": (sum(r.latency[6:]), sum(r.latency)),
    }[metric]


def hour(moment: datetime) -> int:
    return (moment - START) // timedelta(hours=1)


@pytest.mark.parametrize("seed", range(4))
def test_every_device_is_judged_by_the_definitions(tmp_path: Path, seed: int) -> None:
    plan, reports = rollout(0, 50.5, 100), random_reports(seed, 500)
    for place in range(0, len(reports), 100):
        write_reports(tmp_path, reports[place : place + 100], hours(200))
    observed, expected = observe(plan, tmp_path, hours(200)), by_hand(plan, reports, hours(200))
    names = sorted(expected)
    assert len(observed.canary) == len(names)
    for key, column in [("canary", observed.canary), ("cohort", observed.cohort), ("heard", observed.heard)]:
        assert column.tolist() == [expected[name][key] for name in names]
    for guardrail in GUARDRAILS[:4]:
        assert observed.affected[guardrail.metric].tolist() == [expected[name][guardrail.metric] for name in names]


def test_a_device_enters_at_the_first_rung_that_reaches_its_bucket_and_bears_its_earlier_crashes_not(tmp_path: Path):
    early, late = devices("canary", 1, 10)[0], next(d for d in devices("canary", 500) if policy(10).arm(d) == "stable")
    reports = [report(name, end, digest=NEW, crashes=int(end == 15)) for name in (early, late) for end in (-3, 15, 60)]
    write_reports(tmp_path, reports, hours(70))
    observed = observe(rollout(0, 20, percents=(10, 50, 100)), tmp_path, hours(70))
    order = sorted([early, late])
    assert dict(zip(order, observed.entered.tolist(), strict=True)) == {early: 0, late: 20}
    assert dict(zip(order, observed.affected["crashes"].tolist(), strict=True)) == {early: 24, late: NEVER}


def test_a_billion_crashes_of_one_device_are_one_device(tmp_path: Path) -> None:
    [device] = devices("canary", 1)
    observed = seen(tmp_path, [report(device, 3, digest=NEW, crashes=2**31 - 1, sessions=0)] * 3, 30)
    assert observed.affected["crashes"].tolist() == [24]


def test_a_crash_before_the_first_finished_session_counts(tmp_path: Path) -> None:
    observed = seen(tmp_path, [report(devices("control", 1)[0], 30, crashes=1, sessions=0)], 35)
    assert observed.affected["crashes"].tolist() == [30]


def test_reports_from_the_future_and_of_other_channels_wait_outside(tmp_path: Path) -> None:
    [device] = devices("canary", 1)
    others = [{"adapter": "intent"}, {"base_digest": "e" * 64}]
    reports = [report(device, 48, digest=NEW, crashes=1), *(report(device, 2, crashes=1, **one) for one in others)]
    assert len(seen(tmp_path, reports, 45).canary) == 0
    assert observe(rollout(0, percents=(50, 100)), tmp_path, hours(49)).affected["crashes"].tolist() == [48]


def test_a_canary_device_that_posts_when_it_changes_files_is_not_looked_at_earlier_than_its_twin(
    tmp_path: Path,
) -> None:
    [canary], [control] = devices("canary", 1), devices("control", 1)
    swap = [report(canary, 34, crashes=1), report(canary, 42, digest=NEW)]
    reports = [*swap, report(control, 42, crashes=1)]
    first = seen(tmp_path, [reports[0]], 36)
    assert (first.heard.tolist(), first.affected["crashes"].tolist()) == ([NEVER], [NEVER])
    observed = seen(tmp_path, reports, 43)
    assert observed.heard.tolist() == [42, 42]
    assert observed.affected["crashes"].tolist() == [42, 42]


@pytest.mark.parametrize("sync_hours", [1, 12])
def test_posting_when_files_change_makes_a_large_harmless_canary_neither_worse_nor_larger(
    tmp_path: Path, sync_hours: float
) -> None:
    draw, reports = random.Random(1), []
    for arm, names in (("canary", devices("canary", 8000)), ("control", devices("control", 8000))):
        for name in names:
            swap = draw.uniform(0, sync_hours) if arm == "canary" else 99.0
            posts = sorted([draw.uniform(0, 12) + 12 * n for n in range(-1, 3)] + [swap])
            for before, end in pairwise(posts):
                if end < 30:
                    crashes = int(draw.random() < 0.02 * (end - before))
                    digest = NEW if before >= swap else OLD
                    reports.append(report(name, end, digest=digest, crashes=crashes))
    write_reports(tmp_path, reports, hours(30))
    plan = rollout(0, percents=(50, 100))
    looks = [observe(plan, tmp_path, hours(hour)) for hour in (6, 12, 23, 24, 25, 30)]
    for observed in looks:
        crashes = judge(plan.ladder, 0, observed)[0]
        assert crashes.log_e_harm < 2
        assert log_e_sample_ratio(observed) < 2
    assert looks[-1].affected["crashes"][looks[-1].canary].size > 7000


def test_a_device_is_silent_that_many_hours_after_its_last_report_and_not_before(tmp_path: Path) -> None:
    [device], others = devices("canary", 1), devices("control", 30)
    steady = [report(other, end) for other in others for end in range(-20, 200, 6)]
    reports = [*steady, report(device, -1), report(device, 5, digest=NEW)]
    index = sorted([device, *others]).index(device)
    for now, expected in ((52, NEVER), (54, 53), (150, 53)):
        assert seen(tmp_path, reports, now).affected["silent"][index] == expected
    again = seen(tmp_path, [report(device, 90, digest=NEW)], 150)
    assert again.affected["silent"][index] == 53
    assert (np.delete(again.affected["silent"], index) == NEVER).all()


def test_a_device_that_never_reports_again_after_the_start_is_silent_and_one_long_gone_is_not(tmp_path: Path) -> None:
    gone, away = devices("canary", 2)
    steady = [report(other, end) for other in devices("control", 10) for end in range(-160, 200, 6)]
    observed = seen(tmp_path, [*steady, report(gone, -2), report(away, -90)], 100)
    index = {name: sorted([gone, away, *devices("control", 10)]).index(name) for name in (gone, away)}
    assert observed.affected["silent"][index[gone]] == 48
    assert observed.affected["silent"][index[away]] == NEVER
    assert observed.joined["silent"][index[away]] == NEVER


def test_an_outage_of_the_collector_silences_nobody(tmp_path: Path) -> None:
    fleet = devices("canary", 20) + devices("control", 20)
    ends = [*range(-20, 30, 6), *range(130, 180, 6)]
    observed = seen(tmp_path, [report(device, end, digest=NEW) for device in fleet for end in ends], 180)
    assert (observed.affected["silent"] == NEVER).all()
    during = observe(rollout(0, percents=(50, 100)), tmp_path, hours(120))
    assert (during.affected["silent"] == NEVER).all()


def test_segments_are_the_largest_before_the_rollout_and_a_device_keeps_the_one_it_entered_with(tmp_path: Path) -> None:
    fleet = devices("canary", 6) + devices("control", 6)
    locales = ["de-DE"] * 7 + ["en-US"] * 4 + ["fr-FR"]
    before = [report(device, -5, locale=locale) for device, locale in zip(fleet, locales, strict=True)]
    after = [report(device, 5, 1, locale="fr-FR") for device in fleet]
    observed = seen(tmp_path, before + after, 10, max_segments=2)
    assert {name: int(among.sum()) for name, among in observed.segments.items()} == {
        "locale=de-DE": 7,
        "locale=en-US": 4,
    }


def test_without_telemetry_there_are_no_devices(tmp_path: Path) -> None:
    observed = observe(rollout(0), tmp_path / "absent", hours(10))
    assert (len(observed.canary), observed.heard_devices(True), observed.recent_devices(False, 24)) == (0, 0, 0)


def test_a_latency_bound_that_the_histogram_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="slow_ms 1500 must be one of 50, 100"):
        observe(rollout(0, slow_ms=1500), tmp_path, hours(1))


def test_arms_are_those_of_the_policy(tmp_path: Path) -> None:
    names = [f"x{n}" for n in range(300)]
    write_reports(tmp_path, [report(name, 1, digest=NEW) for name in names], hours(2))
    observed = observe(rollout(0, percents=(20, 100)), tmp_path, hours(2))
    arms = {name: policy(20).arm(name) for name in names}
    assert observed.canary.tolist() == [arms[name] == "canary" for name in sorted(names) if arms[name] != "stable"]
