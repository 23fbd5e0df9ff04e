"""Why does this device run what it runs? Answered from its own state, without a network."""

from datetime import timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pocketloop.contracts.delivery import MILLION, Arm, ChannelPolicy, bucket
from pocketloop.device.store import Attempt, Installed, Store


class Explanation(BaseModel):
    """What a device knows about one adapter; `story` says it in sentences."""

    model_config = ConfigDict(frozen=True)

    adapter: str
    device_id: str
    active: Installed | None = None
    previous: Installed | None = None
    arm: Arm = "stable"
    bucket: int | None = None
    """The device's place in [0, 1,000,000) under the channel's salt; `None` while no canary runs."""
    policy: ChannelPolicy | None = None
    wanted: str | None = None
    """sha256 of the file that the policy gives this device; `None` is the base alone."""
    bad: dict[str, str] = {}
    newest_time: AwareDatetime | None = None
    last: Attempt | None = None
    story: list[str] = []


def explain(folder: Path, device_id: str, adapter: str) -> Explanation:
    """Tell why the device in `folder` runs what it runs of this adapter."""
    state = Store(folder).read()
    slot = state.adapters.get(adapter)
    if slot is None:
        return Explanation(
            adapter=adapter,
            device_id=device_id,
            story=[f"This device has never synced {adapter}: the base alone runs."],
        )
    policy = slot.policy
    found = Explanation(
        adapter=adapter,
        device_id=device_id,
        active=slot.active,
        previous=slot.previous,
        arm=policy.arm(device_id) if policy else "stable",
        bucket=bucket(policy.salt, device_id) if policy and policy.salt else None,
        policy=policy,
        wanted=policy.wanted(device_id) if policy else None,
        bad=slot.bad,
        newest_time=state.newest_time,
        last=slot.last,
    )
    return found.model_copy(update={"story": _story(found)})


def _story(found: Explanation) -> list[str]:
    return [*_running(found), *_channel(found), *_differences(found), *_last(found)]


def _running(found: Explanation) -> list[str]:
    active, previous = found.active, found.previous
    if active is None:
        lines = ["The base alone runs."]
    else:
        since = f"{active.installed_at:%Y-%m-%d %H:%M} UTC"
        lines = [
            f"{found.adapter} {active.digest[:12]} runs since {since}: version {active.facts.version}, "
            f"approved as {found.adapter}.released {active.facts.released}."
        ]
    if previous:
        lines.append(f"{previous.digest[:12]} (version {previous.facts.version}) is kept to go back to.")
    return lines


def _channel(found: Explanation) -> list[str]:
    policy = found.policy
    if policy is None:
        return ["No channel policy has been verified yet."]
    lines = [f"The channel is at generation {policy.generation} of {policy.updated:%Y-%m-%d %H:%M} UTC."]
    if not policy.canary_ppm or found.bucket is None:
        lines.append(f"No canary runs: everybody gets {_short(policy.stable)}.")
        return lines
    share = policy.canary_ppm
    lines.append(
        f"A canary of {share / 10_000:g} % runs ({_short(policy.canary)}); this device is in bucket {found.bucket:,} "
        f"of {MILLION:,}, so it belongs to the arm {found.arm!r} (the canary has those below {share:,}) and is given "
        f"{_short(found.wanted)}."
    )
    return lines


def _differences(found: Explanation) -> list[str]:
    lines = [f"{digest[:12]} is not tried again on this device: {why}." for digest, why in found.bad.items()]
    active = found.active.digest if found.active else None
    if found.policy and found.wanted != active and found.wanted not in found.bad:
        lines.append(f"It should run {_short(found.wanted)} and does not; the last sync says why.")
    return lines


def _last(found: Explanation) -> list[str]:
    if found.last is None:
        return []
    reason = f": {found.last.reason}" if found.last.reason else ""
    lines = [f"The last sync ({found.last.at:%Y-%m-%d %H:%M} UTC) ended with {found.last.outcome}{reason}."]
    if found.newest_time and found.newest_time - found.last.at > timedelta(hours=1):
        lines.append(f"The clock is behind: metadata was verified at {found.newest_time:%Y-%m-%d %H:%M} UTC before.")
    return lines


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "the base alone"
