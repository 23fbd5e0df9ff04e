"""Presidio, set up without a trained model: our finders as recognizers, spaCy for tokens alone.

Presidio's own defaults are not loaded: they miss names, street addresses, keys and Mastercard's 2-series, take the
tail of an e-mail address for a URL, and fetch a list of domains over the network. A trained recognizer slots in as one
more `EntityRecognizer`.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pocketloop.privacy import addresses, credentials, patterns, persons
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.spans import RESIDUE, Span, overlaps

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer

Finder = Callable[[str, str], Iterator[Span]]

FINDERS: dict[str, Finder] = {
    "PERSON": persons.persons,
    "PHONE_NUMBER": patterns.phone_numbers,
    "EMAIL_ADDRESS": patterns.emails,
    "ADDRESS": addresses.addresses,
    "DATE_OF_BIRTH": patterns.birth_dates,
    "CREDIT_CARD": patterns.credit_cards,
    "IBAN": patterns.ibans,
    "US_SSN": patterns.social_security_numbers,
    "LICENSE_PLATE": credentials.license_plates,
    "PASSWORD": credentials.passwords,
    "API_KEY": credentials.api_keys,
    "CRYPTO": credentials.crypto_wallets,
    "IP_ADDRESS": patterns.ip_addresses,
    "URL": patterns.urls,
    "USERNAME": credentials.usernames,
    RESIDUE: patterns.residue,
}


class Analyzer:
    """A Presidio engine over our finders and any further recognizers.

    `region` (ISO 3166) is where the speaker dials from; Presidio hands a recognizer nothing but the text, so it is
    set here before each analysis.
    """

    def __init__(self, extra: "list[EntityRecognizer] | None" = None) -> None:
        self.region = "US"
        self._extra = list(extra or [])

    @cached_property
    def _engine(self) -> "AnalyzerEngine":
        """Built on first use: importing Presidio takes seconds, and a run whose shards are all cached needs none."""
        return _engine([*(self._recognizer(kind, finder) for kind, finder in FINDERS.items()), *self._extra])

    def find(self, text: str, region: str = "US") -> list[Span]:
        """All spans in a text, overlapping ones included; none touches a placeholder that already stands there."""
        if not text or text.isspace():
            return []
        self.region = region
        kept = [Span(m.start(), m.end(), "PLACEHOLDER") for m in PLACEHOLDER.finditer(text)] if "<" in text else []
        if kept:
            text = PLACEHOLDER.sub(lambda match: "\ufffc" * len(match.group()), text)
        results = self._engine.analyze(text, language="en")
        spans = [Span(r.start, r.end, r.entity_type, r.score) for r in results]
        return [span for span in spans if not any(overlaps(span, other) for other in kept)]

    def _recognizer(self, kind: str, finder: Finder) -> "EntityRecognizer":
        from presidio_analyzer import EntityRecognizer, RecognizerResult

        analyzer = self

        class FinderRecognizer(EntityRecognizer):
            """One finder in Presidio's clothes."""

            def load(self) -> None:
                """Nothing to load: patterns are compiled at import."""

            def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
                return [RecognizerResult(s.type, s.start, s.end, s.score) for s in finder(text, analyzer.region)]

        return FinderRecognizer([kind], name=f"{kind.title().replace('_', '')}Finder")


def _engine(recognizers: "list[EntityRecognizer]") -> "AnalyzerEngine":
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class BlankEngine(SpacyNlpEngine):
        """spaCy's English tokenizer without a model (the stock engine would download one)."""

        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
            self.nlp = {"en": spacy.blank("en")}

    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=BlankEngine(), supported_languages=["en"])
