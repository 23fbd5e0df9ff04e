"""The lines of a post: each is an event to keep, or refused with a reason that quotes nothing of it."""

from collections.abc import Container
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pocketloop.contracts.collecting import CollectorLimits
from pocketloop.data.parsing import Refused, parse_event
from pocketloop.data.received import device_digest
from pocketloop.services.bodies import TooLarge
from pocketloop.services.event_inbox import Arrival, Outcome

_CONFLICT = "another event came under this event_id"


@dataclass
class Lines:
    """What a post holds: events to keep with the numbers of their lines, and the answers to all other lines."""

    arrivals: list[Arrival] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    def answers(self, outcomes: list[Outcome]) -> list[dict[str, Any]]:
        """The answer to each line that is not blank, given what became of `arrivals`."""
        kept = (
            _refusal(number, "conflict", _CONFLICT) if outcome == "conflict" else {"line": number, "status": outcome}
            for number, outcome in zip(self.numbers, outcomes, strict=True)
        )
        return sorted([*self.refused, *kept], key=lambda answer: int(answer["line"]))


def parse_lines(body: bytes, limits: CollectorLimits, forgotten: Container[str], now: datetime) -> Lines:
    """Read a body line by line; blank lines count as lines and are passed over.

    Args:
        forgotten: digests of devices whose events are refused.
        now: aware; bounds the events' timestamps.

    Raises:
        TooLarge: there are more than `limits.batch_lines` lines.
    """
    if body.count(b"\n") - body.endswith(b"\n") >= limits.batch_lines:
        raise TooLarge(f"more than {limits.batch_lines} lines")
    found = Lines()
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            if len(line) > limits.line_bytes:
                raise Refused("too long", f"{len(line)} bytes, at most {limits.line_bytes} are taken")
            event = parse_event(line, now)
            device = device_digest(event.device_id)
            if device in forgotten:
                raise Refused("forgotten", "the data of this device was deleted, and no more is taken")
        except Refused as refusal:
            found.refused.append(_refusal(number, refusal.reason, refusal.detail))
        else:
            found.arrivals.append(Arrival.of(event, device))
            found.numbers.append(number)
    return found


def _refusal(number: int, reason: str, detail: str) -> dict[str, Any]:
    return {"line": number, "status": "rejected", "reason": reason, "detail": detail}
