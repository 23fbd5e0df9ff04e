"""Scrubbing one device's events: the same person gets the same placeholder in every turn and in every call.

An event's call repeats what its message says, so they are scrubbed together: whatever is found in a message, an
argument or a correction is searched verbatim in all the others. What looks personal but cannot be named sends the
whole event to quarantine: a scrubber that is unsure must not guess.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.events import (
    AdapterTag,
    Correction,
    Feedback,
    InteractionEvent,
    Message,
    Quarantined,
    ToolCall,
)
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.recipe import ScrubConfig
from pocketloop.privacy.addresses import is_street
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.pseudonyms import Pseudonymizer
from pocketloop.privacy.recognizers import Analyzer
from pocketloop.privacy.records import (
    SAFE_TAG,
    DeviceResult,
    ScrubbedEvent,
    cleaned,
    count_leaks,
    leaves,
    mapped,
    safe_tag,
)
from pocketloop.privacy.slots import Slots, slot_type, slots_of
from pocketloop.privacy.spans import PII_TYPES, RESIDUE, Span, free_parts, settle
from pocketloop.privacy.values import Value, clean_text, find_values, is_generic, make_value, normalise

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

__all__ = ["ScrubbedEvent", "Scrubber", "Slots", "code_digest", "slots_of"]

_CONTAINED = {"PERSON", "ADDRESS", "PASSWORD"}
_ROUNDS = 5
_REGION = re.compile(r"[-_]([A-Z]{2})\b")


@dataclass
class _Reading:
    """What was seen in one event: spans by text, the values they hold, and why it cannot be used (if so)."""

    event: InteractionEvent
    region: str
    spans: dict[str, list[Span]] = field(default_factory=dict)
    values: dict[Value, int] = field(default_factory=dict)
    residue: str = ""


class Scrubber:
    """Replaces personal data by typed pseudonyms (`<PERSON_3fa2b1>`).

    Args:
        config: which types are replaced (`None`: all), and the score below which a find counts as residue.
        key: 32 secret bytes; with another key nothing matches.
        slots: arguments whose value is personal data by declaration.
        extra: further Presidio recognizers, such as a trained one for names.

    Raises:
        ConfigError: a type in `config` that no recognizer brings.
    """

    def __init__(
        self, config: ScrubConfig, key: bytes, slots: Slots | None = None, extra: "list[EntityRecognizer] | None" = None
    ) -> None:
        known = {*PII_TYPES, *(kind for recognizer in extra or [] for kind in recognizer.supported_entities)}
        unknown = sorted(set(config.types or ()) - known)
        if unknown:
            raise ConfigError(f"scrub.types: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        self.types = set(config.types or known)
        self.min_score = config.min_score
        self.pseudonyms = Pseudonymizer(key)
        self.slots = slots or {}
        self.analyzer = Analyzer(extra)
        self.digest = sha256_text(
            canonical_json(
                {
                    "config": config.model_dump(mode="json"),
                    "slots": self.slots,
                    "key": self.pseudonyms.key_digest,
                    "extra": [[r.name, r.version] for r in extra or []],
                    "code": code_digest(),
                }
            )
        )[:16]

    def scrub_event(self, event: dict[str, Any]) -> ScrubbedEvent | Quarantined:
        """Scrub one raw event by itself."""
        return self.scrub_device([event]).records[0]

    def scrub_device(self, events: Sequence[dict[str, Any]]) -> DeviceResult:
        """Scrub raw events of one device together: a value found in one is replaced in all of them."""
        readings = [self._read(event) for event in events]
        good = [reading for reading in readings if isinstance(reading, _Reading)]
        shared = list(dict.fromkeys(v for reading in good for v in reading.values if v.shared))
        result = DeviceResult([])
        for reading in readings:
            if isinstance(reading, Quarantined):
                result.records.append(reading)
                continue
            for value, count in reading.values.items():
                result.values[value] = result.values.get(value, 0) + count
            result.region = reading.region
            result.records.append(self._write(reading, list(dict.fromkeys([*reading.values, *shared])), result))
        return result

    def find(self, text: str, region: str = "US") -> list[Span]:
        """Disjoint spans of the wanted types in one text, in order: what would be replaced."""
        spans = self.analyzer.find(clean_text(text), region)
        sure = [s for s in spans if s.score >= self.min_score and s.type != RESIDUE]
        return [s for s in settle(text, sure) if s.type in self.types]

    def _read(self, raw: dict[str, Any]) -> _Reading | Quarantined:
        try:
            event = InteractionEvent.model_validate(cleaned(raw))
        except ValidationError as error:
            where = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
            return Quarantined(stage="scrub", reason="malformed event", detail=f"keys: {where}"[:200])
        region = _REGION.search(event.locale)
        reading = _Reading(event, region.group(1) if region else "US")
        calls = [call for message in event.messages for call in message.tool_calls]
        texts = [message.content for message in event.messages]
        correction = event.feedback.corrected()
        if correction:
            calls += correction.tool_calls
            texts.append(correction.content)
        for call in calls:
            for name, value in call.arguments.items():
                kind = slot_type(self.slots, call.name, name)
                texts += [name, *leaves(value)]
                if kind and kind in self.types:
                    for leaf in leaves(value, keys=False):
                        self._take_slot(reading, leaf, kind)
        for text in dict.fromkeys(texts):
            self._take_text(reading, text)
        self._widen(reading, texts)
        return reading

    def _take_slot(self, reading: _Reading, leaf: str, kind: str) -> None:
        text = leaf.strip()
        if not text or PLACEHOLDER.search(text) or is_generic(text) or (kind == "ADDRESS" and not is_street(text)):
            return
        whole = [s for s in self.analyzer.find(text, reading.region) if (s.start, s.end) == (0, len(text))]
        shaped = [
            s.type for s in whole if s.type not in {RESIDUE, *_CONTAINED} and s.score >= 0.7 and s.type in self.types
        ]
        value = make_value(text, shaped[0] if shaped else kind, slot=True)
        reading.values[value] = reading.values.get(value, 0) + 1

    def _take_text(self, reading: _Reading, text: str) -> None:
        spans = self.analyzer.find(text, reading.region)
        sure = settle(text, [s for s in spans if s.score >= self.min_score and s.type != RESIDUE])
        reading.spans[text] = [s for s in sure if s.type in self.types]
        for span in reading.spans[text]:
            value = make_value(text[span.start : span.end], span.type)
            reading.values[value] = reading.values.get(value, 0) + 1
        slots = [span for span, _ in find_values(text, [v for v in reading.values if v.slot])]
        reading.residue = reading.residue or self._residue(text, spans, [*sure, *slots])

    def _widen(self, reading: _Reading, texts: list[str]) -> None:
        """An everyday word in a slot ("Will") is searched in its own case, unless only another case is ever said."""
        for value in [v for v in reading.values if v.slot and v.exact]:
            if sum(1 for text in texts for _ in find_values(text, [value])) <= reading.values[value]:
                count = reading.values.pop(value)
                reading.values[Value(value.text, value.kind, False, False, True)] = count

    def _write(self, reading: _Reading, values: list[Value], result: DeviceResult) -> ScrubbedEvent | Quarantined:
        event = reading.event
        if reading.residue:
            return self._unclear(reading)
        found: Counter[str] = Counter()

        def text_of(text: str) -> str:
            return self._replace(text, reading, values, found)

        def calls_of(calls: list[ToolCall]) -> list[ToolCall]:
            return [ToolCall(name=c.name, arguments=mapped(c.arguments, text_of)) for c in calls]

        correction = event.feedback.corrected()
        scrubbed = ScrubbedEvent(
            event_id=event.event_id,
            group=self.pseudonyms.group(event.device_id),
            ts=event.ts,
            app_version=safe_tag(event.app_version),
            locale=safe_tag(event.locale),
            adapter=AdapterTag(
                skill=event.adapter.skill, version=safe_tag(event.adapter.version), arm=safe_tag(event.adapter.arm)
            ),
            consent=event.consent,
            messages=[
                Message(role=m.role, content=text_of(m.content), tool_calls=calls_of(m.tool_calls))
                for m in event.messages
            ],
            feedback=Feedback(
                rating=event.feedback.rating,
                correction=Correction(content=text_of(correction.content), tool_calls=calls_of(correction.tool_calls))
                if correction
                else None,
            ),
            metrics={k: v for k, v in event.metrics.items() if SAFE_TAG.fullmatch(k) and isinstance(v, (int, float))},
            found=dict(sorted(found.items())),
        )
        if reading.residue:
            return self._unclear(reading)
        leaked = count_leaks(scrubbed, values)
        if leaked:
            result.leaks += leaked
            return Quarantined(
                stage="scrub",
                reason="a found value survived",
                detail=f"{leaked} occurrences",
                event_id=event.event_id,
            )
        return scrubbed

    def _unclear(self, reading: _Reading) -> Quarantined:
        return Quarantined(
            stage="scrub", reason="unclear residue", detail=reading.residue, event_id=reading.event.event_id
        )

    def _replace(self, text: str, reading: _Reading, values: list[Value], found: Counter[str]) -> str:
        """Replace the text's own finds and all values; then what only stands out once its neighbours are gone."""
        spans = reading.spans.get(text, [])
        hits = list(find_values(text, values))
        if not hits and not spans:
            return text
        text = self._substitute(text, _arranged(text, spans, hits, set(reading.values)), reading, found)
        for _ in range(_ROUNDS):
            spans = self.analyzer.find(text, reading.region)
            sure = settle(text, [s for s in spans if s.score >= self.min_score and s.type != RESIDUE])
            wanted = [s for s in sure if s.type in self.types]
            if not wanted:
                reading.residue = reading.residue or self._residue(text, spans, sure)
                return text
            text = self._substitute(text, wanted, reading, found)
        reading.residue = reading.residue or "no end of finds in one text"
        return text

    def _substitute(self, text: str, spans: list[Span], reading: _Reading, found: Counter[str]) -> str:
        pieces, at = [], 0
        for span in spans:
            normal = normalise(span.type, text[span.start : span.end], reading.region)
            pieces += [text[at : span.start], self.pseudonyms.placeholder(reading.event.device_id, span.type, normal)]
            found[span.type] += 1
            at = span.end
        return "".join(pieces) + text[at:]

    def _residue(self, text: str, spans: list[Span], claimed: list[Span]) -> str:
        """Why a text cannot be trusted: an unsure find of which something is left unclaimed; empty when it can."""
        for span in spans:
            unsure = span.type == RESIDUE or span.score < self.min_score
            if unsure and any(text[part.start : part.end].strip(" .-/") for part in free_parts(span, claimed)):
                return f"unclaimed {span.type.lower()} of {span.end - span.start} characters"
        return ""


def _arranged(text: str, spans: list[Span], hits: list[tuple[Span, Value]], own: set[Value]) -> list[Span]:
    """Finds and verbatim values of one text made disjoint.

    A name in the event's own call comes first, so that the call's "Anna" is the same placeholder as in the message's
    "Anna Kowalska"; but not where it stands inside something of another type, such as an e-mail address.
    """
    placeholders = [Span(m.start(), m.end(), "") for m in PLACEHOLDER.finditer(text)]
    others = spans + [span for span, value in hits if value.kind not in _CONTAINED]
    inner = [
        span
        for span, value in hits
        if value.slot and value.kind in _CONTAINED and value in own and not _inside_another_kind(span, others)
    ]
    return [s for s in settle(text, [*spans, *(span for span, _ in hits)], [*placeholders, *inner]) if s.type]


def _inside_another_kind(span: Span, spans: Iterable[Span]) -> bool:
    """Whether a name stands inside an e-mail address or the like, which is then replaced as a whole."""
    return any(o.start <= span.start and span.end <= o.end and o.type != span.type for o in spans)


def code_digest() -> str:
    """Digest of this package's own files and of the libraries whose data it reads: what a cached result depends on."""
    from importlib.metadata import version

    files = sorted(p.name for p in resources.files("pocketloop.privacy").iterdir() if p.name.endswith((".py", ".txt")))
    texts = [resources.files("pocketloop.privacy").joinpath(name).read_text(encoding="utf-8") for name in files]
    return sha256_text(canonical_json([texts, *(version(name) for name in ("faker", "phonenumbers"))]))
