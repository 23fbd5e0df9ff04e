"""How many messages one core scrubs in a second, beside Presidio's own analyzer with the same spaCy model.

The baseline is Presidio's engine with its default recognizers, asked as its documentation does, text by text, with our
recognizer of names as the spaCy model of its NLP engine; "batched" is the same through its `BatchAnalyzerEngine`. All
sides get the same labelled messages, new ones in each round, and take turns; the best round counts. Recall is over all
labelled types, and over those that Presidio knows by default (`shared`): a faster side that finds less has not won.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

BASELINE = "presidio + ner"
SHARED = {
    "PERSON",
    "PHONE_NUMBER",
    "EMAIL_ADDRESS",
    "CREDIT_CARD",
    "IBAN",
    "US_SSN",
    "CRYPTO",
    "IP_ADDRESS",
    "URL",
}
Finds = list[list[tuple[int, int]]]


def messages(count: int, seed: int) -> list[dict[str, Any]]:
    """Labelled messages of the first held-out set, a third of them without personal data."""
    from pocketloop.data.demo.pii_heldout import heldout_pii

    return [row.model_dump() for row in heldout_pii("first", count, seed)]


def presidio_engine() -> Any:
    """Presidio's defaults around our model, without the network: no download, no list of public suffixes."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer
    from spacy.language import Language

    from pocketloop.privacy.ner.model import EmbeddedNer

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())  # type: ignore[assignment]
    ner = EmbeddedNer()

    @Language.component("entities_of_embedded_ner")
    def _entities(doc: Any) -> Any:
        doc.ents = ner.entities(doc)
        return doc

    import spacy

    nlp = spacy.blank("en", vocab=ner.nlp.vocab)
    nlp.add_pipe("entities_of_embedded_ner")
    labels = {label: label for label in ner.types}

    class Embedded(SpacyNlpEngine):
        def __init__(self) -> None:
            config = NerModelConfiguration(model_to_presidio_entity_mapping=labels, labels_to_ignore=[])
            super().__init__(models=[{"lang_code": "en", "model_name": "embedded"}], ner_model_configuration=config)
            self.nlp = {"en": nlp}

    engine = Embedded()
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(nlp_engine=engine)
    registry.remove_recognizer("SpacyRecognizer")
    registry.add_recognizer(SpacyRecognizer(supported_entities=list(labels)))
    return AnalyzerEngine(registry=registry, nlp_engine=engine)


def one_by_one(engine: Any) -> Callable[[Sequence[str]], Finds]:
    """The baseline as its documentation shows it."""
    return lambda texts: [[(r.start, r.end) for r in engine.analyze(text, language="en")] for text in texts]


def batched(engine: Any) -> Callable[[Sequence[str]], Finds]:
    """The baseline's own way of taking many texts."""
    from presidio_analyzer import BatchAnalyzerEngine

    batch = BatchAnalyzerEngine(analyzer_engine=engine)
    return lambda texts: [
        [(r.start, r.end) for r in found] for found in batch.analyze_iterator(texts, language="en", batch_size=256)
    ]


def recall(rows: list[dict[str, Any]], finds: Finds, types: set[str] | None) -> float:
    """Share of labelled spans of which every letter and digit was found."""
    whole = labelled = 0
    for row, found in zip(rows, finds, strict=True):
        covered = {index for start, end in found for index in range(start, end)}
        for span in row["spans"]:
            if types is None or span["type"] in types:
                bare = {index for index in range(span["start"], span["end"]) if row["text"][index].isalnum()}
                whole += bare <= covered
                labelled += 1
    return whole / labelled


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    from pocketloop.contracts.recipe import ScrubConfig
    from pocketloop.privacy.scrubber import Scrubber

    engine, scrubber = presidio_engine(), Scrubber(ScrubConfig(), b"b" * 32)
    sides: dict[str, Callable[[Sequence[str]], Finds]] = {
        BASELINE: one_by_one(engine),
        "presidio batched": batched(engine),
        "find_many": lambda texts: _sure(scrubber, texts),
        "find": lambda texts: [[(s.start, s.end) for s in scrubber.find(text)] for text in texts],
        "scrub": lambda texts: _scrub(scrubber, texts),
    }
    seconds: dict[str, float] = {}
    recalls: dict[str, tuple[float, float]] = {}
    for work in sides.values():
        work([row["text"] for row in messages(60, seed=99)])
    for seed in range(options.rounds):
        rows = messages(options.messages, seed)
        texts = [row["text"] for row in rows]
        for name, work in sides.items():
            start = time.process_time()
            finds = work(texts)
            seconds[name] = min(seconds.get(name, float("inf")), time.process_time() - start)
            if name != "scrub":
                recalls[name] = (recall(rows, finds, None), recall(rows, finds, SHARED))
    rates = {name: options.messages / spent for name, spent in seconds.items()}
    ratios = {name: rate / rates[BASELINE] for name, rate in rates.items()}
    if options.json:
        print(json.dumps({"messages_per_cpu_second": rates, "ratio": ratios, "recall": recalls}))
        return
    for name, rate in rates.items():
        found = "" if name == "scrub" else f"   recall {recalls[name][0]:.3f}, shared types {recalls[name][1]:.3f}"
        print(f"{name:17} {rate:7.0f} messages per CPU second   {ratios[name]:5.2f} x {BASELINE}{found}")


def _sure(scrubber: Any, texts: Sequence[str]) -> Finds:
    found = scrubber.analyzer.find_many(texts)
    return [
        [(s.start, s.end) for s in scrubber.wanted.sure(text, spans)] for text, spans in zip(texts, found, strict=True)
    ]


def _scrub(scrubber: Any, texts: Sequence[str]) -> Finds:
    """Whole events of one message each, in shards of 500: validation, finds, pseudonyms and leak audit."""
    event = {
        "ts": "2026-03-01T10:00:00Z",
        "locale": "en-US",
        "adapter": {"skill": "functions"},
        "consent": {"training": True, "policy": "p"},
    }
    events = [
        {**event, "event_id": f"e{i}", "device_id": f"d{i // 8}", "messages": [{"role": "user", "content": text}]}
        for i, text in enumerate(texts)
    ]
    for start in range(0, len(events), 500):
        scrubber.scrub(events[start : start + 500])
    return []


if __name__ == "__main__":
    main()
