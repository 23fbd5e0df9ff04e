"""All finders of personal data behind one call: our patterns, and a trained recognizer beside them.

Every finder is also a Presidio recognizer (`Analyzer.presidio`), and any Presidio recognizer can be added. Texts do not
go through Presidio's `AnalyzerEngine` themselves: it spends most of its time around the recognizers (explanations,
logging, context words, one text at a time), and its default recognizers miss names, street addresses, keys and
Mastercard's 2-series, take the tail of an e-mail address for a URL, and fetch a list of domains over the network.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.recipe import NerConfig
from pocketloop.privacy import addresses, credentials, patterns, persons
from pocketloop.privacy.ner.engines import Ner, Recognized, as_recognizer, load_ner, ner_version
from pocketloop.privacy.ner.model import EMBEDDED
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.spans import RESIDUE, Span, free_parts, overlaps, trimmed

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer


class Finder(NamedTuple):
    """What finds one type in a text, given the speaker's region (ISO 3166); `digits`: only where there is a digit."""

    find: Callable[[str, str], Iterator[Span]]
    digits: bool = False


FINDERS: dict[str, Finder] = {
    "PERSON": Finder(persons.persons),
    "PHONE_NUMBER": Finder(patterns.phone_numbers, True),
    "EMAIL_ADDRESS": Finder(patterns.emails),
    "ADDRESS": Finder(addresses.addresses, True),
    "DATE_OF_BIRTH": Finder(patterns.birth_dates, True),
    "CREDIT_CARD": Finder(patterns.credit_cards, True),
    "IBAN": Finder(patterns.ibans, True),
    "US_SSN": Finder(patterns.social_security_numbers, True),
    "LICENSE_PLATE": Finder(credentials.license_plates, True),
    "PASSWORD": Finder(credentials.passwords),
    "API_KEY": Finder(credentials.api_keys),
    "CRYPTO": Finder(credentials.crypto_wallets, True),
    "IP_ADDRESS": Finder(patterns.ip_addresses),
    "URL": Finder(patterns.urls),
    "USERNAME": Finder(credentials.usernames),
    RESIDUE: Finder(patterns.residue),
}
_LEARNT = {"PERSON", "ADDRESS", RESIDUE}
_SURE = 0.5
"""Score from which a find with a shape of its own is not open to discussion."""
_EVERYWHERE = [finder.find for finder in FINDERS.values() if not finder.digits]
_ALL = [finder.find for finder in FINDERS.values()]


class Analyzer:
    """Finds personal data in texts.

    Args:
        ner: the trained recognizer beside the patterns.
        extra: further Presidio recognizers.
        embedded: where the model of the engine `embedded` lies, to try another than the shipped one.
    """

    def __init__(
        self,
        ner: NerConfig | None = None,
        extra: "Sequence[EntityRecognizer] | None" = None,
        embedded: Path = EMBEDDED,
    ) -> None:
        self.ner = ner or NerConfig()
        self._embedded = embedded
        self._extra = list(extra or ())

    @cached_property
    def version(self) -> str:
        """Digest of what decides the finds beside this package's own files: engine, model, further recognizers."""
        others = [[r.name, r.version, sorted(r.supported_entities)] for r in self._extra]
        return sha256_text(canonical_json([ner_version(self.ner, self._embedded), others]))[:16]

    @cached_property
    def _trained(self) -> list[Ner]:
        """Loaded on first use: spaCy takes seconds, and a run whose shards are all cached needs none."""
        trained = load_ner(self.ner, self._embedded)
        others: list[Ner] = [Recognized(recognizer) for recognizer in self._extra]
        return [trained, *others] if trained else others

    def find(self, text: str, region: str = "US") -> list[Span]:
        """All spans in a text, overlapping ones included; none touches a placeholder that already stands there."""
        return self.find_many([text], region)[0]

    def find_many(self, texts: Sequence[str], region: str | Sequence[str] = "US") -> list[list[Span]]:
        """`find` for each text, several times as fast: a trained recognizer reads all of them at once.

        Args:
            texts: any number; equal texts of one region are looked at once.
            region: where the speakers dial from (ISO 3166), one for all or one for each text.
        """
        regions = [region] * len(texts) if isinstance(region, str) else list(region)
        keys = list(zip(texts, regions, strict=True))
        found: dict[tuple[str, str], list[Span]] = {key: [] for key in keys}
        masked = {key: _masked(key[0]) for key in found if key[0] and not key[0].isspace()}
        plain = list(dict.fromkeys(text for text, _ in masked.values()))
        trained: dict[str, list[Span]] = {text: [] for text in plain}
        for ner in self._trained:
            for text, spans in zip(plain, ner.find_many(plain), strict=True):
                trained[text] += spans
        for key, (text, kept) in masked.items():
            finders = _ALL if patterns.has_digit(text) else _EVERYWHERE
            spans = [span for find in finders for span in find(text, key[1])]
            spans += _beside(text, trained[text], spans)
            if kept:
                spans = [span for span in spans if not any(overlaps(span, other) for other in kept)]
            found[key] = list(dict.fromkeys(spans))
        return [found[key] for key in keys]

    def presidio(self, region: str = "US") -> "AnalyzerEngine":
        """Presidio's own engine over the same recognizers, for whoever uses Presidio already."""
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine

        class BlankEngine(SpacyNlpEngine):
            """spaCy's English tokenizer without a model (the stock engine would download one)."""

            def __init__(self) -> None:
                super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
                self.nlp = {"en": spacy.blank("en")}

        recognizers = [_recognizer(kind, finder.find, region) for kind, finder in FINDERS.items()]
        recognizers += [as_recognizer(ner) for ner in self._trained]
        registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
        return AnalyzerEngine(registry=registry, nlp_engine=BlankEngine(), supported_languages=["en"])


def _beside(text: str, trained: list[Span], found: list[Span]) -> Iterator[Span]:
    """What a trained recognizer adds to the patterns: it knows names better than they do, but not what a number is."""
    shaped = [span for span in found if span.type not in _LEARNT and span.score >= _SURE]
    for span in trained:
        if not any(overlaps(span, other) for other in shaped):
            yield span
            continue
        yield from (part for each in free_parts(span, shaped) if (part := trimmed(each, text)))


def _masked(text: str) -> tuple[str, list[Span]]:
    """The text with its placeholders made unreadable, and where they stand."""
    if "<" not in text:
        return text, []
    kept = [Span(m.start(), m.end(), "PLACEHOLDER") for m in PLACEHOLDER.finditer(text)]
    return PLACEHOLDER.sub(lambda match: "\ufffc" * len(match.group()), text), kept


def _recognizer(kind: str, find: Callable[[str, str], Iterator[Span]], region: str) -> "EntityRecognizer":
    from presidio_analyzer import EntityRecognizer, RecognizerResult

    class FinderRecognizer(EntityRecognizer):
        """One finder in Presidio's clothes."""

        def load(self) -> None:
            """Nothing to load: patterns are compiled at import."""

        def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
            return [RecognizerResult(s.type, s.start, s.end, s.score) for s in find(text, region)]

    return FinderRecognizer([kind], name=f"{kind.title().replace('_', '')}Finder")
