"""How many messages a second one core scrubs, beside Presidio's default recognizers on the same texts.

Texts are short requests with and without personal data. Both sides run on spaCy's blank English tokenizer, in turns,
and the best of several rounds counts; the ratio is the figure that carries over to another machine.
"""

import argparse
import json
import time
from collections.abc import Callable

TEMPLATES = (
    "set a timer for {n} minutes",
    "call {first} {last} on 415-555-01{n}",
    "remind me to buy milk on 25 December",
    "what's the weather in Oslo tomorrow",
    "email {first}.{last}@example.com that I'm late",
    "navigate to {n} Main Street please",
    "turn off the lights in the kitchen",
    "play something by the Foxes",
)
FIRST = ("Anna", "Sandy", "Zbigniew", "Priya", "Tom")
LAST = ("Wu", "Kowalski", "Meyer", "Okafor", "Silva")


def texts(count: int) -> list[str]:
    """`count` different requests, half of them with personal data."""
    return [
        TEMPLATES[i % len(TEMPLATES)].format(n=10 + i % 90, first=FIRST[i % 5], last=LAST[i // 5 % 5])
        for i in range(count)
    ]


def default_engine() -> Callable[[str], object]:
    """Presidio with its own recognizers, without the network: no model, and no list of public suffixes."""
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())  # type: ignore[assignment]

    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
            self.nlp = {"en": spacy.blank("en")}

    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(nlp_engine=Blank())
    engine = AnalyzerEngine(registry=registry, nlp_engine=Blank())
    return lambda text: engine.analyze(text, language="en")


def seconds(work: Callable[[str], object], batch: list[str]) -> float:
    """CPU seconds for one pass."""
    start = time.process_time()
    for text in batch:
        work(text)
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    from pocketloop.contracts.recipe import ScrubConfig
    from pocketloop.privacy.scrubber import Scrubber

    scrubber = Scrubber(ScrubConfig(), b"b" * 32)
    sides = {"presidio defaults": default_engine(), "find": scrubber.find, "scrub": _scrub_one(scrubber)}
    batch = texts(options.messages)
    best: dict[str, float] = {}
    for work in sides.values():
        seconds(work, batch[:50])
    for _ in range(options.rounds):
        for name, work in sides.items():
            best[name] = min(best.get(name, float("inf")), seconds(work, batch))
    rates = {name: len(batch) / spent for name, spent in best.items()}
    ratios = {name: rate / rates["presidio defaults"] for name, rate in rates.items()}
    if options.json:
        print(json.dumps({"messages_per_cpu_second": rates, "ratio": ratios}))
        return
    for name, rate in rates.items():
        print(f"{name:18} {rate:7.0f} messages per CPU second   {ratios[name]:5.2f} x Presidio's defaults")


def _scrub_one(scrubber: object) -> Callable[[str], object]:
    """A whole event of one message: validation, detection, pseudonyms and leak audit."""
    event = {
        "event_id": "e",
        "device_id": "d",
        "ts": "2026-03-01T10:00:00Z",
        "locale": "en-US",
        "adapter": {"skill": "functions"},
        "consent": {"training": True, "policy": "p"},
    }
    return lambda text: scrubber.scrub_event({**event, "messages": [{"role": "user", "content": text}]})  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
