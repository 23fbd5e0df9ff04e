from collections.abc import Callable
from typing import Any

import pytest
from judged_functions import CATALOGUE

from pocketloop.contracts.recipe import Catalogue


@pytest.fixture
def functions() -> Catalogue:
    return Catalogue.model_validate(CATALOGUE)


@pytest.fixture
def labels() -> Catalogue:
    return Catalogue(labels=["music", "weather", "timer", "out_of_scope"])


@pytest.fixture
def make_event() -> Callable[..., dict[str, Any]]:
    def make(number: int, messages: list[dict[str, Any]], skill: str = "functions", **feedback: Any) -> dict[str, Any]:
        return {
            "event_id": f"e{number}",
            "group": f"g-{number}",
            "ts": "2026-11-01T10:00:00Z",
            "app_version": "1.0",
            "locale": "en-US",
            "metrics": {},
            "found": {},
            "adapter": {"skill": skill},
            "consent": {"training": True, "policy": "p"},
            "messages": messages,
            "feedback": feedback,
        }

    return make
