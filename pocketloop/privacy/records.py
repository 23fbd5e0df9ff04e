"""Scrubbed events, and the texts inside events."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pocketloop.contracts.events import AdapterTag, Consent, Feedback, InteractionEvent, Message
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


def texts_of(event: InteractionEvent | ScrubbedEvent) -> list[str]:
    """Every text of an event that a person, a model or a tool wrote, names of arguments included, in order."""
    said = [message.content for message in event.messages]
    calls = [call for message in event.messages for call in message.tool_calls]
    correction = event.feedback.corrected()
    if correction:
        said.append(correction.content)
        calls += correction.tool_calls
    texts = [leaf for content in said for leaf in leaves(structured(content) or content)]
    return texts + [leaf for call in calls for leaf in leaves(call.arguments)]


def structured(content: str) -> Any:
    """What a content that is a JSON object or list holds, if `rewritten` can write it again; `None` for any other."""
    if not content.startswith(("{", "[")):
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if content in (json.dumps(value, ensure_ascii=False), _compact(value)) else None


def _compact(value: Any) -> str:
    """Compact JSON in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def rewritten(content: str, change: Callable[[str], str]) -> str:
    """A content with every text in it changed; one that is JSON stays the JSON that it is."""
    value = structured(content)
    if not value:
        return change(content)
    changed = mapped(value, change)
    return _compact(changed) if content == _compact(value) else json.dumps(changed, ensure_ascii=False)


def count_leaks(event: ScrubbedEvent, values: Iterable[Value]) -> int:
    """How often any of the raw values still stands in a scrubbed event, outside its placeholders."""
    values = list(values)
    if not values:
        return 0
    # Each piece between placeholders is searched by itself: a piece stood in the raw text as it is.
    return sum(
        1 for text in texts_of(event) for part in PLACEHOLDER.split(text)[::2] for _ in find_values(part, values)
    )


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
