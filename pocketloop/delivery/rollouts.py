"""The moves of a rollout: start, look and decide, take back.

A move is safe to be killed in the middle of (see `rollout_store`), and each runs under the store's lock: two watchers,
or a watcher and a person, take turns.
"""

import re
from datetime import datetime
from pathlib import Path

from pocketloop.contracts.delivery import MILLION, ChannelPolicy
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.rollout import Decision, Ladder, Promotion, Rollout, RolloutPlan
from pocketloop.delivery.rollout_store import Channels, RolloutStore, enforce

_REPEATED_HOURS = 6


def start_rollout(
    channels: Channels,
    store: RolloutStore,
    ladder: Ladder,
    promotion: Promotion,
    plan: RolloutPlan | None,
    now: datetime,
) -> Rollout:
    """Serve a published adapter to the ladder's first rung; started twice, it is the same rollout.

    Raises:
        DeliveryError: the adapter is not approved, is what the channel serves, or was taken back before; another
            rollout runs on the channel.
        ConfigError: the ladder's `slow_ms` is no bound of the latency histogram.
    """
    from pocketloop.delivery.observations import slow_from

    slow_from(ladder)
    digest, base_digest = str(promotion.digest), str(promotion.base_digest)
    with store.exclusive():
        current = channels.policy(promotion.adapter, base_digest)
        running = store.running(promotion.adapter, base_digest)
        if running is not None and running.digest == digest:
            running = store.settle(channels, running.rollout_id)
            enforce(channels, running, now)
            return running
        _check_startable(channels, store, promotion, current, running)
        rung = ladder.rungs[0]
        rollout = Rollout(
            rollout_id=_rollout_id(promotion, now),
            adapter=promotion.adapter,
            base_digest=base_digest,
            version=promotion.version,
            released=promotion.released,
            digest=digest,
            previous=current.stable if current else None,
            ladder=ladder,
            plan=plan,
            started=now,
            rung_started=now,
            rungs=[now],
            state="complete" if rung.ppm == MILLION else "running",
        )
        reason = f"version {promotion.version} goes to {rung.percent:g} % of the fleet"
        rollout.decisions.append(
            Decision(at=now, action="start", why="started", reason=reason, rung=0, ppm_before=0, ppm_after=rung.ppm)
        )
        if rollout.state == "complete":
            store.move(channels, rollout, now)
        else:
            # Written first: were it the policy, a process killed here would leave a canary that nobody watches.
            store.save(rollout)
            enforce(channels, rollout, now)
        return rollout


def watch_once(channels: Channels, store: RolloutStore, rollout: Rollout, telemetry: Path, now: datetime) -> Decision:
    """Look once: decide on what was reported up to `now`, and put the decision in force.

    `rollout` is brought up to date. A look that was already taken, or one at a rollout that has ended, gives the last
    decision again.

    Raises:
        DeliveryError: the channel was changed by something else than this rollout, or the policy cannot be set.
    """
    from pocketloop.delivery.decide import decide
    from pocketloop.delivery.observations import observe
    from pocketloop.delivery.telemetry import compact

    with store.exclusive():
        current = store.settle(channels, rollout.rollout_id)
        _copy(current, rollout)
        if current.state != "running" or now <= current.decisions[-1].at:
            return current.decisions[-1]
        if current.digest not in channels.approved():
            decision = _back(current, now, "revoked", f"{current.digest[:12]} is no longer approved")
        else:
            compact(telemetry, now)
            decision = decide(current, observe(current, telemetry, now), now)
        following = _after(current, decision)
        if decision.action == "hold":
            store.save(following)
            enforce(channels, following, now)
        else:
            store.move(channels, following, now)
        _copy(following, rollout)
        return decision


def roll_back_now(channels: Channels, store: RolloutStore, rollout: Rollout, reason: str, now: datetime) -> Decision:
    """Take a rollout back by hand, running or complete; `rollout` is brought up to date.

    Raises:
        DeliveryError: it was taken back before; the channel has moved on to another file.
    """
    with store.exclusive():
        current = store.settle(channels, rollout.rollout_id)
        if current.state == "rolled_back":
            raise DeliveryError(f"rollout {current.rollout_id} was already taken back")
        served = channels.policy(current.adapter, current.base_digest)
        if current.state == "complete" and (served is None or served.stable != current.digest or served.canary):
            running = store.running(current.adapter, current.base_digest)
            instead = f"take back {running.rollout_id}, which runs" if running else "nothing is to be taken back"
            raise DeliveryError(f"channel {current.adapter} no longer serves {current.digest[:12]} alone; {instead}")
        decision = _back(current, now, "by_hand", reason)
        following = _after(current, decision)
        store.move(channels, following, now)
        _copy(following, rollout)
        return decision


def _after(rollout: Rollout, decision: Decision) -> Rollout:
    """The record once a decision is in force."""
    following = rollout.model_copy(update={"decisions": [*rollout.decisions], "rungs": [*rollout.rungs]})
    last = following.decisions[-1]
    repeats = (last.action, last.why, last.rung) == (decision.action, decision.why, decision.rung)
    if decision.action == "hold" and repeats and _kept_shortly_before(following.decisions, decision):
        following.decisions.pop()
    following.decisions.append(decision)
    if decision.action in ("widen", "finish"):
        following.rung += 1
        following.rung_started = decision.at
        following.rungs.append(decision.at)
    following.state = {"finish": "complete", "roll_back": "rolled_back"}.get(decision.action, "running")  # type: ignore[assignment]
    return following


def _kept_shortly_before(decisions: list[Decision], decision: Decision) -> bool:
    """Whether the decision before the last one is recent: then the last one's evidence may give way to newer."""
    return len(decisions) > 1 and (decision.at - decisions[-2].at).total_seconds() <= _REPEATED_HOURS * 3600


def _back(rollout: Rollout, now: datetime, why: str, reason: str) -> Decision:
    ppm = {"complete": MILLION, "rolled_back": 0}.get(rollout.state, rollout.ladder.rungs[rollout.rung].ppm)
    return Decision(at=now, action="roll_back", why=why, reason=reason, rung=rollout.rung, ppm_before=ppm, ppm_after=0)


def _check_startable(
    channels: Channels,
    store: RolloutStore,
    promotion: Promotion,
    current: ChannelPolicy | None,
    running: Rollout | None,
) -> None:
    digest, named = promotion.digest, f"{promotion.adapter}@{promotion.version}"
    if digest is None or promotion.base_digest is None:
        raise DeliveryError(f"{named} was not published yet")
    if running is not None:
        raise DeliveryError(f"{named} must wait: rollout {running.rollout_id} of version {running.version} runs")
    facts = channels.approved().get(digest)
    if facts is None or (facts.adapter, facts.base_digest) != (promotion.adapter, promotion.base_digest):
        raise DeliveryError(
            f"{named}: {digest[:12]} is not approved for this adapter and base; reviewers sign it first"
        )
    if current is not None and current.stable == digest:
        raise DeliveryError(f"{named} is what the channel serves already")
    channel = (promotion.adapter, promotion.base_digest)
    for earlier in store.all():
        if (
            earlier.digest == digest
            and earlier.state == "rolled_back"
            and (earlier.adapter, earlier.base_digest) == channel
        ):
            last = earlier.decisions[-1]
            raise DeliveryError(
                f"{named} was taken back on {last.at:%Y-%m-%d} ({last.reason}); train and approve another"
            )


def _rollout_id(promotion: Promotion, now: datetime) -> str:
    """Readable, and new for each rollout: it is the salt that assigns devices to arms."""
    adapter = re.sub(r"[^a-z0-9]+", "-", promotion.adapter)[:40]
    return f"{adapter}-{now:%Y%m%d-%H%M%S}-{str(promotion.digest)[:8]}"


def _copy(source: Rollout, target: Rollout) -> None:
    for name in Rollout.model_fields:
        setattr(target, name, getattr(source, name))
