"""Trained recognizers of names and addresses, chosen by configuration: ours, or a production engine in its place.

Every engine fails closed: a text that its model cannot read is an error, never a text without finds.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.files import sha256_file, sha256_tree
from pocketloop.contracts.recipe import NerConfig
from pocketloop.privacy.ner.model import EMBEDDED, EmbeddedNer
from pocketloop.privacy.spans import Span

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

_BATCH = 64
_STRIDE = 32
"""Word pieces that two windows over a long text share."""
_SPACY_SCORE = 0.85
"""What Presidio gives a find of spaCy's, which has no score of its own."""
_GLINER_THRESHOLD = 0.3


class Ner(Protocol):
    """A trained recognizer over whole texts."""

    @property
    def types(self) -> Sequence[str]:
        """What it finds, by the scrubber's names."""
        ...

    def find_many(self, texts: Sequence[str]) -> list[list[Span]]:
        """Spans of each text; a text's spans do not depend on the others."""
        ...


def load_ner(config: NerConfig, embedded: Path = EMBEDDED) -> Ner | None:
    """The engine that `config` names, `None` for `none`; ours is loaded from the folder `embedded`.

    Raises:
        ConfigError: a library is missing, or the model cannot be loaded.
    """
    model = str(config.model)
    try:
        if config.engine == "embedded":
            return EmbeddedNer(embedded, config.language)
        if config.engine == "spacy":
            return SpacyNer(model, config.labels)
        if config.engine == "transformers":
            return TransformersNer(model, config.labels)
        if config.engine == "gliner":
            return Recognized(_gliner(model, config))
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"scrub.ner: cannot load {config.engine} {config.model or config.language}: {error}"
        ) from error
    return None


def ner_version(config: NerConfig, embedded: Path = EMBEDDED) -> Any:
    """What a result depends on: the configuration, and the digest of the model's files where they lie on this machine.

    A model named by its hub id is taken to be what it was; pin it by a local folder.
    """
    folder = embedded if config.engine == "embedded" else Path(config.model or "")
    named = config.engine == "embedded" or (config.model and folder.is_dir())
    return [config.model_dump(mode="json", exclude={"model"}), sha256_tree(folder) if named else config.model, _code()]


def _code() -> list[str]:
    """Digests of the code that loads and reads models."""
    return [sha256_file(Path(__file__).parent / name) for name in ("engines.py", "model.py")]


class SpacyNer:
    """The entities of any spaCy pipeline, `labels` of them under the scrubber's types."""

    def __init__(self, model: str, labels: Mapping[str, str]) -> None:
        import spacy

        self._nlp = spacy.load(model)
        self._labels = dict(labels)
        self.types = sorted(set(labels.values()))

    def find_many(self, texts: Sequence[str]) -> list[list[Span]]:
        """Through `nlp.pipe`."""
        return [
            [
                Span(entity.start_char, entity.end_char, self._labels[entity.label_], _SPACY_SCORE)
                for entity in doc.ents
                if entity.label_ in self._labels
            ]
            for doc in self._nlp.pipe(texts, batch_size=_BATCH)
        ]


class TransformersNer:
    """A token classifier of the transformers library: a local folder or a hub id.

    Presidio's own recognizer for these logs a failure and goes on as if nothing had been found, so it is not used.
    """

    def __init__(self, model: str, labels: Mapping[str, str]) -> None:
        from transformers import pipeline

        self._pipeline = pipeline("token-classification", model=model, aggregation_strategy="first", stride=_STRIDE)
        self._labels = dict(labels)
        self.types = sorted(set(labels.values()))
        known = {name.split("-", 1)[-1] for name in self._pipeline.model.config.id2label.values()}
        if not known & set(labels):
            raise ValueError(f"it has the labels {', '.join(sorted(known))}, `labels` names none of them")

    def find_many(self, texts: Sequence[str]) -> list[list[Span]]:
        """In batches; texts longer than the model's window are read in windows that overlap."""
        found = self._pipeline(list(texts), batch_size=_BATCH) if texts else []
        return [list(self._spans(entities)) for entities in found]

    def _spans(self, entities: list[dict[str, Any]]) -> Iterator[Span]:
        for entity in entities:
            if entity["entity_group"] in self._labels:
                yield Span(
                    int(entity["start"]),
                    int(entity["end"]),
                    self._labels[entity["entity_group"]],
                    float(entity["score"]),
                )


class Recognized:
    """A Presidio recognizer as one of ours."""

    def __init__(self, recognizer: "EntityRecognizer") -> None:
        self._recognizer = recognizer
        self.types = list(recognizer.supported_entities)

    def find_many(self, texts: Sequence[str]) -> list[list[Span]]:
        """Text by text: Presidio's recognizers take one at a time."""
        results = (self._recognizer.analyze(text, self.types, None) for text in texts)
        return [[Span(r.start, r.end, r.entity_type, r.score) for r in found or []] for found in results]


def _gliner(model: str, config: NerConfig) -> "EntityRecognizer":
    """Presidio's GLiNER recognizer; `labels` are the model's questions ("person name") and our types."""
    from importlib.util import find_spec

    if find_spec("gliner") is None:
        raise ImportError("the package gliner is not installed; it needs an environment with an older transformers")
    from presidio_analyzer.predefined_recognizers import GLiNERRecognizer

    return GLiNERRecognizer(
        model_name=model,
        entity_mapping=dict(config.labels),
        threshold=_GLINER_THRESHOLD,
        supported_language=config.language,
    )


def as_recognizer(ner: Ner) -> "EntityRecognizer":
    """An engine as a Presidio recognizer."""
    from presidio_analyzer import EntityRecognizer, RecognizerResult

    class Trained(EntityRecognizer):
        """A trained engine in Presidio's clothes."""

        def load(self) -> None:
            """Loaded before."""

        def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
            return [RecognizerResult(s.type, s.start, s.end, s.score) for s in ner.find_many([text])[0]]

    return Trained(list(ner.types), name=type(ner).__name__)
