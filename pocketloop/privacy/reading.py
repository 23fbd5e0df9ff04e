"""Reading raw events: what personal data stands where in each, and whether anything in it is unclear."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pocketloop.contracts.events import InteractionEvent, Quarantined, ToolCall
from pocketloop.privacy.addresses import is_street
from pocketloop.privacy.names import gazetteer, ordinary_words
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.records import cleaned, leaves, structured, texts_of
from pocketloop.privacy.slots import Slots, slot_type
from pocketloop.privacy.spans import RESIDUE, Span, free_parts, settle
from pocketloop.privacy.values import Value, compact, find_values, is_generic, is_ordinary, make_value, parts_of

CONTAINED = {"PERSON", "ADDRESS", "PASSWORD"}
"""Types that may be a part of a longer find of another type."""

DOUBT = 0.35
"""A find this many times as sure as one must be to be believed makes a text unclear; what is less sure is noise.

Chosen on held-out texts: of those that a find still leaked from, this withholds one in seven for one in a thousand of
the others. From 0.25 on it would be one in three for one in eighty, and every fourth long dialogue.
"""

Find = Callable[[Sequence[str], Sequence[str]], list[list[Span]]]
"""Texts and the regions that their speakers dial from → all spans of each text."""

_NAME = re.compile(r"[\w.:/+-]+")
_FIELD = re.compile(r"[a-z]+(?:_[a-z]+)*")
_SHORT_NUMBER = re.compile(r"[\s+-]*\d{0,4}(?:[.,:]\d{1,2})?\s*")
_REGION = re.compile(r"[-_]([A-Z]{2})\b")


@dataclass
class Reading:
    """What was seen in one event: spans by text, the values they hold, and why it cannot be used (if so)."""

    event: InteractionEvent
    region: str
    spans: dict[str, list[Span]] = field(default_factory=dict)
    values: dict[Value, int] = field(default_factory=dict)
    residue: str = ""


@dataclass(frozen=True)
class Wanted:
    """Which types are replaced, the score from which a find is sure, and the arguments that are personal by name.

    A text that as a whole stands in `vocabulary` says nothing of anybody: it is the recipe's own label or choice.
    """

    types: frozenset[str]
    min_score: float
    slots: Slots
    vocabulary: frozenset[str] = frozenset()

    def sure(self, text: str, spans: Sequence[Span]) -> list[Span]:
        """Disjoint finds of any type that are sure enough to be believed."""
        return settle(text, [s for s in spans if s.score >= self.min_score and s.type != RESIDUE])

    def of(self, spans: Sequence[Span]) -> list[Span]:
        """The finds that are to be replaced."""
        return [span for span in spans if span.type in self.types]

    def residue(self, text: str, spans: Sequence[Span], claimed: Sequence[Span]) -> str:
        """Why a text cannot be trusted: an unsure find of which something is left unclaimed; empty when it can.

        An everyday word that may be a name is left alone: it says nothing about anybody.
        """
        doubtful = DOUBT * self.min_score
        for span in spans:
            if span.type != RESIDUE and not doubtful <= span.score < self.min_score:
                continue
            left = [text[part.start : part.end].strip(" .-/") for part in free_parts(span, claimed)]
            if any(len(compact(part)) > 1 and not is_ordinary(part) for part in left):
                return f"unclaimed {span.type.lower()} of {span.end - span.start} characters"
        return ""


def read_events(raws: Sequence[dict[str, Any]], wanted: Wanted, find: Find) -> list[Reading | Quarantined]:
    """Read raw events, all texts of which are searched in one batch."""
    events = [_parse(raw) for raw in raws]
    readings = [Reading(e, _region(e)) if isinstance(e, InteractionEvent) else e for e in events]
    finds = Finds(find)
    for reading in readings:
        if isinstance(reading, Reading):
            for text in _to_search(reading.event, wanted):
                finds.ask(text, reading.region)
    finds.answer()
    for reading in readings:
        if isinstance(reading, Reading):
            _take(reading, wanted, finds)
    return readings


class Finds:
    """Questions to the analyzer, asked together; a text that repeats is searched once."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._asked: dict[tuple[str, str], list[Span]] = {}

    def ask(self, text: str, region: str) -> None:
        """Note a text to be searched; a short number by itself says nothing of anybody."""
        if not _SHORT_NUMBER.fullmatch(text):
            self._asked[text, region] = []

    def answer(self) -> None:
        """Search all that was asked."""
        if self._asked:
            found = self._find([text for text, _ in self._asked], [region for _, region in self._asked])
            self._asked = dict(zip(self._asked, found, strict=True))

    def of(self, text: str, region: str) -> list[Span]:
        """All spans of a text that was asked for."""
        return self._asked.get((text, region), [])


def _parse(raw: dict[str, Any]) -> InteractionEvent | Quarantined:
    try:
        event = InteractionEvent.model_validate(cleaned(raw))
    except (ValidationError, RecursionError) as error:
        keys = error.errors() if isinstance(error, ValidationError) else []
        where = ", ".join(sorted({".".join(map(str, e["loc"])) for e in keys})) or "too deep"
        return Quarantined(stage="scrub", reason="malformed event", detail=f"keys: {where}"[:200])
    # Names are kept as they are. One that a program gave is plain; anything else may be what somebody said.
    if not all(_NAME.fullmatch(call.name) for call in _calls(event)):
        detail = "a function's name has characters that no function's has"
        return Quarantined(stage="scrub", reason="malformed event", detail=detail, event_id=event.event_id)
    return event


def _region(event: InteractionEvent) -> str:
    found = _REGION.search(event.locale)
    return found.group(1) if found else "US"


def _calls(event: InteractionEvent) -> list[ToolCall]:
    calls = [call for message in event.messages for call in message.tool_calls]
    correction = event.feedback.corrected()
    return calls + (correction.tool_calls if correction else [])


def _slots(event: InteractionEvent, wanted: Wanted) -> Iterator[tuple[str, str]]:
    """The texts in arguments that are personal data by declaration or by name, and their type."""
    named = [(call.name, name, value) for call in _calls(event) for name, value in call.arguments.items()]
    named += [("", name, value) for m in event.messages for name, value in _members(structured(m.content))]
    for function, name, value in named:
        kind = slot_type(wanted.slots, function, name)
        if kind in wanted.types:
            for leaf in leaves(value, keys=False):
                text = leaf.strip()
                street = kind != "ADDRESS" or is_street(text)
                if text and street and not PLACEHOLDER.search(text) and not is_generic(text):
                    yield text, kind


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key in a tool's answer with its value, where that is no object itself."""
    if isinstance(value, list):
        for part in value:
            yield from _members(part)
    elif isinstance(value, dict):
        for name, part in value.items():
            if isinstance(part, dict) or (isinstance(part, list) and any(isinstance(each, dict) for each in part)):
                yield from _members(part)
            else:
                yield name, part


def _to_search(event: InteractionEvent, wanted: Wanted) -> Iterator[str]:
    contents = {message.content for message in event.messages}
    for text in texts_of(event):
        if text in wanted.vocabulary:
            continue
        if text in contents or not _is_field(text):
            yield text
    for text, _ in _slots(event, wanted):
        yield text


def _is_field(text: str) -> bool:
    """Whether this is what a program calls a field or a choice: nobody's name, where "anna" may be somebody's.

    In `return_date` an everyday word that some people are called too is a word.
    """
    parts = text.split("_")
    names = [part for part in parts if part in gazetteer()]
    return bool(_FIELD.fullmatch(text)) and (not names or (len(parts) > 1 and ordinary_words().issuperset(names)))


def _take(reading: Reading, wanted: Wanted, finds: Finds) -> None:
    for text, kind in _slots(reading.event, wanted):
        _add(reading, make_value(text, _shape(text, finds.of(text, reading.region), wanted) or kind, slot=True))
    texts = texts_of(reading.event)
    for text in dict.fromkeys(texts):
        spans = finds.of(text, reading.region)
        sure = wanted.sure(text, spans)
        reading.spans[text] = wanted.of(sure)
        for span in reading.spans[text]:
            _add(reading, make_value(text[span.start : span.end], span.type))
        slots = [span for span, _ in find_values(text, [v for v in reading.values if v.slot])]
        reading.residue = reading.residue or wanted.residue(text, spans, [*sure, *slots])
    _widen(reading, texts)


def _shape(text: str, spans: Sequence[Span], wanted: Wanted) -> str:
    """The type that a whole value has by its form, whatever its slot is called; empty when it has none."""
    whole = [s for s in spans if (s.start, s.end) == (0, len(text)) and s.score >= 0.7]
    return next((s.type for s in whole if s.type not in {RESIDUE, *CONTAINED} and s.type in wanted.types), "")


def _add(reading: Reading, value: Value) -> None:
    for each in (value, *parts_of(value)):
        reading.values[each] = reading.values.get(each, 0) + 1


def _widen(reading: Reading, texts: list[str]) -> None:
    """An everyday word in a slot ("Will") is searched in its own case, unless only another case is ever said."""
    for value in [v for v in reading.values if v.slot and v.exact]:
        if sum(1 for text in texts for _ in find_values(text, [value])) <= reading.values[value]:
            count = reading.values.pop(value)
            reading.values[Value(value.text, value.kind, False, False, True)] = count
