"""Scrubbed events, and the texts inside events."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pocketloop.contracts.events import AdapterTag, Consent, Feedback, Message, Quarantined
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.values import Value, clean_text, find_values

SAFE_TAG = re.compile(r"[\w.+\- ]{0,40}")


class ScrubbedEvent(BaseModel):
    """An event without personal data: what is left of the phone is a pseudonym, `group`.

    `metrics` keeps numbers and flags only; unknown keys of the raw event are gone. `found` counts replacements by type.
    """

    model_config = ConfigDict(extra="forbid")

    event_id: str
    group: str
    ts: AwareDatetime
    app_version: str
    locale: str
    adapter: AdapterTag
    consent: Consent
    messages: list[Message]
    feedback: Feedback
    metrics: dict[str, float | bool]
    found: dict[str, int]


@dataclass
class DeviceResult:
    """One device's records in the order given, and what was found in them (raw: never written anywhere)."""

    records: list[ScrubbedEvent | Quarantined]
    values: dict[Value, int] = field(default_factory=dict)
    leaks: int = 0
    region: str = "US"


def count_leaks(event: ScrubbedEvent, values: Iterable[Value]) -> int:
    """How often any of the raw values still stands in a scrubbed event, outside its placeholders."""
    values = list(values)
    if not values:
        return 0
    texts: list[str] = []
    for message in event.messages:
        texts += [message.content, *(leaf for call in message.tool_calls for leaf in leaves(call.arguments))]
    correction = event.feedback.corrected()
    if correction:
        texts += [correction.content, *(leaf for call in correction.tool_calls for leaf in leaves(call.arguments))]
    return sum(1 for text in texts for _ in find_values(PLACEHOLDER.sub("\ufffc", text), values))


def leaves(value: Any, keys: bool = True) -> list[str]:
    """All texts inside an argument, numbers included as they would be written; the keys of objects if asked."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        parts = [*value, *value.values()] if keys else list(value.values())
        return [leaf for part in parts for leaf in leaves(part, keys)]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part, keys)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same structure with every text changed; a number becomes a text only where something in it was replaced."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): mapped(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [mapped(part, change) for part in value]
    if value is None or isinstance(value, bool):
        return value
    written = change(str(value))
    return value if written == str(value) else written


def cleaned(value: Any) -> Any:
    """The raw event with every text in the form in which it is searched."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): cleaned(part) for key, part in value.items()}
    return [cleaned(part) for part in value] if isinstance(value, list) else value


def safe_tag(text: str) -> str:
    """A version or locale as it is, anything longer or stranger not at all."""
    return text if SAFE_TAG.fullmatch(text) else ""
