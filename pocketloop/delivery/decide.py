"""What a rollout does next: back, hold, wider, or done. A pure function of its record, what was observed, and the time.

The order matters. Harm is looked at first and outranks every reason to hold, or a canary whose crashes kill its
telemetry would be held instead of taken back. Then what would make the numbers unfit to widen on: unequal arms, missing
telemetry, too few devices. A rung is left only when every guardrail is certified, and only for the next one.

`why` is one of

    harm, segment_harm       a guardrail is shown to be worse, in the whole fleet or in a segment     roll_back
    revoked, by_hand         the file is no longer approved; somebody asked for it                    roll_back
    sample_ratio             the arms differ in size more than chance makes them                      hold
    no_telemetry             an arm has not been heard from for a day                                 hold
    too_few                  fewer than `min_devices` of an arm were heard from                       hold
    holding                  the rung's `min_hours` are not over                                      hold
    not_certified            a guardrail is not yet shown to be below its `max_ratio`                 hold
    stalled                  the same, or too few, for more than `max_days`                           hold
    noninferior              every guardrail is certified                                   widen or finish
    started                  the first rung                                                         start
"""

import math
from datetime import datetime, timedelta

import numpy as np

from pocketloop.contracts.delivery import MILLION
from pocketloop.contracts.rollout import Action, Decision, Guardrail, GuardrailEvidence, Ladder, Rollout
from pocketloop.delivery.observations import NEVER, SETTLE_HOURS, Observations
from pocketloop.delivery.statistics import (
    Counts,
    confidence_sequence,
    harm,
    log_e_binomial,
    log_e_rare,
    noninferiority,
    stack,
)

QUIET_HOURS = 24
"""An arm from which no device reports for this long has no telemetry."""


def decide(rollout: Rollout, observed: Observations, now: datetime) -> Decision:
    """Decide about a running rollout.

    Args:
        observed: of this rollout, up to `now`.
    """
    evidence = judge(rollout.ladder, rollout.rung, observed)
    action, why, reason = _verdict(rollout, observed, evidence, now)
    before = rollout.ladder.rungs[rollout.rung].ppm
    following = rollout.ladder.rungs[min(rollout.rung + 1, len(rollout.ladder.rungs) - 1)].ppm
    return Decision(
        at=now,
        action=action,
        why=why,
        reason=reason,
        rung=rollout.rung,
        ppm_before=before,
        ppm_after={"roll_back": 0, "widen": following, "finish": MILLION}.get(action, before),
        canary_devices=observed.heard_devices(True),
        control_devices=observed.heard_devices(False),
        log_e_srm=log_e_sample_ratio(observed),
        guardrails=evidence,
    )


def judge(ladder: Ladder, rung: int, observed: Observations) -> list[GuardrailEvidence]:
    """The evidence of each guardrail: of the whole fleet, and of the segment where it looks worst."""
    return [one for guardrail in ladder.guardrails for one in _judge(ladder, rung, guardrail, observed)]


def is_harmful(evidence: GuardrailEvidence) -> bool:
    """Whether this is a reason to roll back.

    A device that reverted has helped itself, and its control had no new file to revert from: any number would be more
    than none. Reverts are harm only where they are not shown to be negligible.
    """
    return evidence.harmful and not (evidence.metric == "reverts" and evidence.negligible)


def log_e_sample_ratio(observed: Observations) -> float:
    """Log e-value against arms of equal size, among the settled devices that were heard from since they entered."""
    heard = (observed.heard < NEVER) & (observed.entered < observed.hours - SETTLE_HOURS)
    canary = int((heard & observed.canary).sum())
    return log_e_binomial(canary, int(heard.sum()), 0.5)


def counts(observed: Observations, metric: str, among: np.ndarray | None = None) -> Counts:
    """Newly affected devices and devices at risk by cohort and hour."""
    shape = (int(observed.cohort.max(initial=0)) + 1, observed.hours)
    affected = observed.affected[metric]
    joined = np.minimum(observed.joined[metric], affected)

    def tally(hour: np.ndarray, canary_only: bool) -> np.ndarray:
        chosen = hour < NEVER
        if among is not None:
            chosen &= among
        if canary_only:
            chosen &= observed.canary
        places = observed.cohort[chosen] * shape[1] + hour[chosen]
        return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape).astype(float)

    def at_risk(new: np.ndarray, canary_only: bool) -> np.ndarray:
        left: np.ndarray = tally(joined, canary_only).cumsum(axis=1) - new.cumsum(axis=1) + new
        return left

    canary, both = tally(affected, True), tally(affected, False)
    return Counts(canary, both, at_risk(canary, True), at_risk(both, False))


def _judge(ladder: Ladder, rung: int, guardrail: Guardrail, observed: Observations) -> list[GuardrailEvidence]:
    tallied = {"": counts(observed, guardrail.metric)}
    tallied |= {name: counts(observed, guardrail.metric, among) for name, among in observed.segments.items()}
    log_e = dict(zip(tallied, harm(stack(list(tallied.values()))).max(axis=-1).tolist(), strict=True))
    worst = sorted(observed.segments, key=lambda name: -log_e[name])[:3]
    fleet, *segments = (
        _evidence(ladder, rung, guardrail, observed, name, tallied[name], log_e[name]) for name in ["", *worst]
    )
    return [fleet, *sorted(segments, key=lambda one: not is_harmful(one))[:1]]


def _evidence(
    ladder: Ladder,
    rung: int,
    guardrail: Guardrail,
    observed: Observations,
    segment: str,
    tallied: Counts,
    log_e_harm: float,
) -> GuardrailEvidence:
    metric, loosen = guardrail.metric, ladder.rungs[rung].loosen
    among = observed.segments[segment] if segment else np.ones(len(observed.canary), dtype=bool)
    entered = observed.joined[metric]
    heard = observed.heard < NEVER
    if metric == "silent":
        heard = entered < observed.hours - math.ceil(ladder.silent_hours)
    exposed = heard & (entered < observed.hours - SETTLE_HOURS)
    canary, control = among & observed.canary, among & ~observed.canary
    hit = observed.affected[metric] < NEVER
    rare = float(log_e_rare((canary & exposed & hit).sum(), (canary & exposed).sum(), guardrail.negligible * loosen))
    total = tallied.together()
    low, high = confidence_sequence(total, ladder.confidence)
    certain = -math.log1p(-ladder.confidence)
    return GuardrailEvidence(
        metric=metric,
        segment=segment,
        canary_devices=int((canary & heard).sum()),
        control_devices=int((control & heard).sum()),
        canary_affected=int((canary & hit).sum()),
        control_affected=int((control & hit).sum()),
        log_e_harm=log_e_harm,
        harm_threshold=-math.log(_alpha(ladder, bool(segment))),
        log_e_noninferior=float(noninferiority(total, 1 + (guardrail.max_ratio - 1) * loosen)[-1]),
        noninferior_threshold=certain,
        ratio_low=float(low[-1]),
        ratio_high=float(high[-1]),
        negligible=rare >= certain,
    )


def _alpha(ladder: Ladder, segment: bool) -> float:
    """The part of `alpha` that one test has: a guardrail's share, half for the fleet and half for its segments.

    Segments share by how many there may be, not by how many there are, so that no look changes another's threshold.
    """
    share = ladder.alpha / len(ladder.guardrails)
    tests = ladder.max_segments * len(ladder.segments)
    if not tests:
        return share
    return share / 2 / (tests if segment else 1)


def _verdict(
    rollout: Rollout, observed: Observations, evidence: list[GuardrailEvidence], now: datetime
) -> tuple[Action, str, str]:
    """Action, why, and the reason in words."""
    harmful = sorted(filter(is_harmful, evidence), key=lambda one: (one.segment != "", -one.log_e_harm))
    if harmful:
        where = f" for {harmful[0].segment}" if harmful[0].segment else ""
        return "roll_back", "segment_harm" if where else "harm", f"{describe(harmful[0])}{where}"
    if unfit := _unfit(rollout, observed, now):
        return "hold", *unfit
    ladder, age = rollout.ladder, now - rollout.rung_started
    rung, following = ladder.rungs[rollout.rung], ladder.rungs[rollout.rung + 1]
    if age < timedelta(hours=rung.min_hours):
        return "hold", "holding", f"{rung.percent:g} % for {age / timedelta(hours=1):.0f} of {rung.min_hours:g} hours"
    open_ones = [one for one in evidence if not one.segment and not one.noninferior]
    if open_ones:
        least = min(open_ones, key=lambda one: one.log_e_noninferior)
        names = ", ".join(one.metric for one in open_ones)
        return "hold", _or_stalled(rollout, "not_certified", now), f"not certified: {names}; {describe(least)}"
    reason = f"every guardrail certified at {rung.percent:g} % after {age / timedelta(days=1):.1f} days"
    return "finish" if following.ppm == MILLION else "widen", "noninferior", reason


def _unfit(rollout: Rollout, observed: Observations, now: datetime) -> tuple[str, str] | None:
    """Why nothing may be concluded from these numbers but harm, and the reason in words."""
    ladder = rollout.ladder
    canary, control = observed.heard_devices(True), observed.heard_devices(False)
    if log_e_sample_ratio(observed) >= -math.log(ladder.srm_alpha):
        return "sample_ratio", f"heard from {canary:,} canary and {control:,} control devices, of arms of equal size"
    arms = (("canary", True), ("control", False))
    quiet = " and the ".join(name for name, arm in arms if not observed.recent_devices(arm, QUIET_HOURS))
    if quiet and now - rollout.started >= timedelta(hours=QUIET_HOURS):
        return "no_telemetry", f"no report from the {quiet} for {QUIET_HOURS} hours"
    if min(canary, control) < ladder.min_devices:
        reason = f"heard from {canary:,} canary and {control:,} control devices; each arm needs {ladder.min_devices:,}"
        return _or_stalled(rollout, "too_few", now), reason
    return None


def _or_stalled(rollout: Rollout, why: str, now: datetime) -> str:
    return "stalled" if now - rollout.rung_started > timedelta(days=rollout.ladder.max_days) else why


def describe(evidence: GuardrailEvidence) -> str:
    """One guardrail's evidence in words."""
    canary = f"{evidence.canary_affected:,} of {evidence.canary_devices:,} canary devices"
    control = f"{evidence.control_affected:,} of {evidence.control_devices:,} control devices"
    low, high = evidence.ratio_low, evidence.ratio_high
    if high < 100:
        ratio = f"ratio {low:.2f} to {high:.2f}"
    else:
        ratio = f"ratio at least {low:.2f}" if low > 0 else "too few to compare"
    return f"{evidence.metric}: {canary}, {control}, {ratio}"
