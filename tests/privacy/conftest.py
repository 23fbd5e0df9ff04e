from collections.abc import Callable
from typing import Any

import pytest

from pocketloop.contracts.recipe import NerConfig, ScrubConfig
from pocketloop.privacy.scrubber import Scrubber

SLOTS = {
    "make_call": {"who": "PERSON"},
    "navigate_to": {"destination": "ADDRESS"},
    "save_contact": {"name": "PERSON", "phone": "PHONE_NUMBER"},
}


@pytest.fixture(scope="session")
def scrubber() -> Scrubber:
    """A scrubber of all types with two declared functions; loading Presidio takes seconds, so it is shared."""
    return Scrubber(ScrubConfig(), b"k" * 32, SLOTS)


@pytest.fixture(scope="session")
def by_patterns() -> Scrubber:
    """The same without the trained recognizer: what it finds never changes with a model."""
    return Scrubber(ScrubConfig(ner=NerConfig(engine="none")), b"k" * 32, SLOTS)


@pytest.fixture(scope="session")
def event() -> Callable[..., dict[str, Any]]:
    """Builds raw events."""
    return _event


def _event(*turns: Any, device: str = "d-1", event_id: str = "e-1", **more: Any) -> dict[str, Any]:
    """An event whose turns alternate between user and assistant; a tuple is a call (name, arguments)."""
    messages = []
    for index, turn in enumerate(turns):
        message: dict[str, Any] = {"role": "assistant" if index % 2 else "user"}
        if isinstance(turn, tuple):
            message["tool_calls"] = [{"name": turn[0], "arguments": turn[1]}]
        else:
            message["content"] = turn
        messages.append(message)
    return {
        "schema": "interaction/1",
        "event_id": event_id,
        "device_id": device,
        "ts": "2026-03-01T10:00:00Z",
        "app_version": "4.2.0",
        "locale": "en-US",
        "adapter": {"skill": "functions", "version": "1"},
        "consent": {"training": True, "policy": "2026-01"},
        "messages": messages,
        "metrics": {"latency_ms": 12.5, "fallback": False, "note": "free text"},
        "secret_extra": "Anna Smith",
        **more,
    }
