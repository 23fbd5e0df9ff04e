"""Trained recognizers of names and addresses, chosen by configuration: ours, or a production engine in its place."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pocketloop.contracts.recipe import NerConfig
from pocketloop.privacy.spans import Span

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer


class Ner(Protocol):
    """A trained recognizer over whole texts."""

    def find_many(self, texts: Sequence[str]) -> list[list[Span]]:
        """Spans of each text; a text's spans do not depend on the others."""
        ...

    def recognizer(self) -> "EntityRecognizer":
        """The same as a Presidio recognizer."""
        ...


class Recognized:
    """A Presidio recognizer as one of ours."""

    def __init__(self, recognizer: "EntityRecognizer") -> None:
        self._recognizer = recognizer

    def find_many(self, texts: Sequence[str]) -> list[list[Span]]:
        """Asks text by text: Presidio's recognizers take one at a time."""
        entities = self._recognizer.supported_entities
        results = (self._recognizer.analyze(text, entities, None) for text in texts)
        return [[Span(r.start, r.end, r.entity_type, r.score) for r in found or []] for found in results]

    def recognizer(self) -> "EntityRecognizer":
        """The recognizer itself."""
        return self._recognizer


def load_ner(config: NerConfig) -> Ner | None:
    """The engine that `config` names, `None` for `none`."""
    return None


def ner_version(config: NerConfig) -> Any:
    """What a cached result depends on: the configuration, and the model's files or version."""
    return config.model_dump(mode="json")
