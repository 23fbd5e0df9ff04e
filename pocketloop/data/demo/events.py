"""The log of a made-up fleet: what phones with consent, and without, would post."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from pocketloop.data.demo._random import rng_for
from pocketloop.data.demo.conversations import chat_conversation, function_conversation, intent_conversation
from pocketloop.data.demo.mistakes import feedback
from pocketloop.data.demo.people import Persona, make_persona

DAYS = 60
EVENTS_PER_DEVICE = 15
DUPLICATES = 0.02
CONFLICTS = 0.005
_BLOCK = 10 * EVENTS_PER_DEVICE
_TALKS = {"functions": function_conversation, "intent": intent_conversation, "assistant": chat_conversation}
_SHARES = (60, 33, 7)


def demo_events(
    n: int, seed: int = 7, start: int = 0, *, now: datetime | None = None, faults: bool = False
) -> Iterator[dict[str, Any]]:
    """Events `start` to `start + n` of the fleet that belongs to `seed`, as `interaction/1` objects.

    An event depends on `seed`, its index and `now` alone, so a later call with a larger `start` extends the fleet: some
    of it are new devices, the rest earlier ones that go on talking. About 2 % repeat an earlier event to the letter,
    as a phone does that posts twice. Timestamps lie within the 60 days before `now` (default: the start of the current
    day, UTC): for a log that is to be extended, hand in the same `now` again.

    Beside the fields of the contract each event has `demo`: {"right": whether the answer was, "pii": [{turn, start,
    end, type}]}, which nothing trains on.

    Args:
        n: how many events, repeated ones included.
        seed: names the fleet.
        start: index of the first event.
        now: the end of the period, with a time zone.
        faults: also let a few events come again under the same id with other content.
    """
    end = now or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for index in range(start, start + n):
        yield _posted(index, seed, end, faults)


def _posted(index: int, seed: int, now: datetime, faults: bool) -> dict[str, Any]:
    """The event at `index`: a new one, an earlier one again, or (a fault) an earlier one's id with other content."""
    rng = rng_for("post", seed, index)
    chance = rng.random()
    back = rng.randint(1, 40)
    if index < back or chance >= DUPLICATES + CONFLICTS:
        return _event(index, seed, now)
    if chance < DUPLICATES:
        return _posted(index - back, seed, now, False)
    event = _event(index, seed, now)
    if faults:
        event["event_id"] = _posted(index - back, seed, now, False)["event_id"]
    return event


def _event(index: int, seed: int, now: datetime) -> dict[str, Any]:
    rng = rng_for("event", seed, index)
    devices = (index // _BLOCK + 1) * 10
    newest = rng.random() < 0.6
    device = devices - 1 - rng.randrange(10) if newest else rng.randrange(devices)
    persona, settings = _device(seed, device)
    skill = rng.choices(list(_TALKS), _SHARES)[0]
    talk = _TALKS[skill](rng, persona)
    moment = now - timedelta(seconds=rng.randrange(1, DAYS * 86400))
    return {
        "schema": "interaction/1",
        "event_id": _digest("event", seed, index)[:24],
        "device_id": f"d-{_digest('device', seed, device)[:8]}",
        "ts": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "app_version": settings["app_version"],
        "locale": persona.me.locale.replace("_", "-"),
        "adapter": {
            "skill": skill,
            "version": settings["version"],
            "arm": "canary" if rng.random() < 0.1 else "stable",
        },
        "consent": {"training": settings["consent"] and rng.random() >= 0.04, "policy": settings["policy"]},
        "messages": talk.messages,
        "feedback": feedback(talk.right, talk.correction, rng),
        "metrics": {"latency_ms": round(rng.lognormvariate(5.8, 0.4), 1), "fallback": rng.random() < 0.03},
        "demo": {"right": talk.right, "pii": talk.pii},
    }


@lru_cache(maxsize=4096)
def _device(seed: int, device: int) -> tuple[Persona, dict[str, Any]]:
    """Who holds a device, and what it keeps from event to event."""
    rng = rng_for("device", seed, device)
    persona = make_persona(rng, "train")
    settings = {
        "consent": rng.random() >= 0.12,
        "policy": "2026-01" if rng.random() < 0.8 else "2025-06",
        "app_version": rng.choice(["4.1.2", "4.2.0", "4.2.1"]),
        "version": rng.choice(["1", "2"]),
    }
    return persona, settings


def _digest(*key: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, key)).encode()).hexdigest()
