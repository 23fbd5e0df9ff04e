"""One line of the event log: parsed, checked and brought to its canonical form, or refused with a reason."""

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from pocketloop.contracts.events import InteractionEvent
from pocketloop.contracts.files import canonical_json, sha256_text

MAX_AHEAD = timedelta(days=1)
"""A phone's clock may be this far ahead of ours."""

_PLAIN_KEY = re.compile(r"[A-Za-z_]{1,40}")
_PLAIN_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True)
class ParsedEvent:
    """What the log keeps of an event: the columns it is filtered by, and the event itself as canonical JSON."""

    event_id: str
    digest: str
    ts: str
    device_id: str
    skill: str
    training: bool
    policy: str
    raw: str


class Refused(Exception):
    """Why a line is no record. Nothing in it ever quotes what a person wrote."""

    def __init__(self, reason: str, detail: str = "", event_id: str | None = None) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.event_id = event_id


def parse_event(data: bytes, now: datetime) -> ParsedEvent:
    """Read one `interaction/1` line; `now` (aware) bounds its timestamp.

    The digest is over the canonical JSON of the whole object, unknown keys included: key order and spacing do not
    make two events different.

    Raises:
        Refused: for anything else, whatever the bytes.
    """
    value = parse_object(data)
    given = value.get("event_id")
    shown = given if isinstance(given, str) and _PLAIN_ID.fullmatch(given) else None
    try:
        event = InteractionEvent.model_validate(value)
    except ValidationError as error:
        detail = explain_validation(error)
        raise Refused("consent" if detail.startswith("consent") else "schema", detail, shown) from None
    # Pydantic would read "yes" and 1 as true and a number as a time; consent and time are taken at their word only.
    if type(value["consent"]["training"]) is not bool:
        raise Refused("consent", "consent.training: not true or false", shown)
    if not isinstance(value["ts"], str):
        raise Refused("schema", "ts: not an RFC 3339 text", shown)
    if event.ts > now + MAX_AHEAD:
        raise Refused("future", f"ts: {event.ts.date()} is more than a day ahead of {now.date()}", shown)
    try:
        ts = event.ts.astimezone(UTC).isoformat()
        raw = canonical_json(value)
        raw.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused("encoding", "half of a surrogate pair stands alone", shown) from None
    except (OverflowError, RecursionError) as error:
        raise Refused("schema", type(error).__name__, shown) from None
    return ParsedEvent(
        event_id=event.event_id,
        digest=sha256_text(raw),
        ts=ts,
        device_id=event.device_id,
        skill=event.adapter.skill,
        training=event.consent.training,
        policy=event.consent.policy,
        raw=raw,
    )


def parse_object(data: bytes) -> dict[str, Any]:
    """Read one line as a JSON object in UTF-8.

    Raises:
        Refused: with the reason `encoding`, `malformed JSON` or `not an object`.
    """
    if b"\0" in data:
        raise Refused("encoding", "the line holds zero bytes: not UTF-8 text")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise Refused("encoding", f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Refused("malformed JSON", f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise Refused("malformed JSON", "nested too deeply") from None
    except ValueError:  # Python's bound on the digits of an integer
        raise Refused("malformed JSON", "a number is too long") from None
    if not isinstance(value, dict):
        raise Refused("not an object", f"the line is a JSON {_kind(value)}")
    return value


def _finite(digits: str) -> float:
    # An infinite number would be written as a constant that is no JSON, and not be read again.
    value = float(digits)
    if math.isinf(value):
        raise Refused("malformed JSON", "a number is too large")
    return value


def _no_constant(name: str) -> None:
    raise Refused("malformed JSON", f"{name} is no JSON number")


def _kind(value: Any) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")


def explain_validation(error: ValidationError) -> str:
    """The first wrong key of a record and what is wrong with it, without its value."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(_plain(part) for part in first["loc"]) or "the record"
    kind = str(first["type"])
    return f"{where}: {'missing' if kind == 'missing' else kind.replace('_', ' ')}"


def _plain(part: str | int) -> str:
    # An unknown key is the phone's own wording: it could hold anything.
    return str(part) if isinstance(part, int) or _PLAIN_KEY.fullmatch(part) else "(unknown key)"
