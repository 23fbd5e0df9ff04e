"""Scrubbing conversations that are about to be shown: what the scrubber is not sure of comes back as nothing."""

from collections.abc import Sequence

from pocketloop.contracts.events import Message
from pocketloop.privacy.scrubber import ScrubbedEvent, Scrubber


def scrub_conversations(scrubber: Scrubber, conversations: Sequence[list[Message]]) -> list[list[Message] | None]:
    """Each conversation with typed placeholders for personal values; `None` where residue may be left in it."""
    events = [
        {
            "schema": "interaction/1",
            "event_id": f"shown-{number}",
            "device_id": f"shown-{number}",
            "ts": "2000-01-01T00:00:00Z",
            "adapter": {"skill": "shown"},
            "consent": {"training": False, "policy": "none"},
            "messages": [message.model_dump(mode="json") for message in messages],
        }
        for number, messages in enumerate(conversations)
    ]
    records = scrubber.scrub(events).records if events else []
    return [record.messages if isinstance(record, ScrubbedEvent) else None for record in records]
