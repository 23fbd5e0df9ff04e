"""Scrubbing a device's events: the same person gets the same placeholder in every turn, every call and every event.

An event's call repeats what its message says, so they are scrubbed together: whatever is found in a message, an
argument or a correction is searched verbatim in all the others, and in the device's other events. What looks personal
but cannot be named sends the whole event to quarantine: a scrubber that is unsure must not guess.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.events import AdapterTag, Correction, Feedback, Message, Quarantined, ToolCall
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.recipe import ScrubConfig
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.pseudonyms import Pseudonymizer
from pocketloop.privacy.reading import CONTAINED, Reading, Wanted, read_events
from pocketloop.privacy.recognizers import Analyzer
from pocketloop.privacy.records import SAFE_TAG, ScrubbedEvent, count_leaks, mapped, rewritten, safe_tag, texts_of
from pocketloop.privacy.slots import Slots, slots_of, vocabulary_of
from pocketloop.privacy.spans import PII_TYPES, Span, settle
from pocketloop.privacy.values import Form, Value, clean_text, find_values, normalise

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

__all__ = ["Scrubbed", "ScrubbedEvent", "Scrubber", "Slots", "scrubbing_digest", "slots_of", "vocabulary_of"]

_ROUNDS = 5
_NOT_SCRUBBING = {"audit.py", "block.py", "report.py", "shards.py", "sources.py"}
"""Modules that a cached scrubbed event does not depend on."""


@dataclass
class Scrubbed:
    """Records in the order of the raw events, and what was found in them (raw: only ever in private files).

    `groups` tells each event's device by its pseudonym (`None` for a malformed event), `values` the values found as
    (value, region, times), `shared` those that are searched in all events of a device, and `leaked` says of records (by
    their place) how many values stood in them all the same, which sent them to quarantine.
    """

    records: list[ScrubbedEvent | Quarantined]
    groups: list[str | None] = field(default_factory=list)
    values: Counter[tuple[Value, str]] = field(default_factory=Counter)
    shared: dict[str, set[Form]] = field(default_factory=dict)
    leaked: dict[int, int] = field(default_factory=dict)


class Scrubber:
    """Replaces personal data by typed pseudonyms (`<PERSON_3fa2b1>`). It pickles, key included.

    Args:
        config: which types are replaced (`None`: all), and the score below which a find counts as residue.
        key: 32 secret bytes; with another key nothing matches.
        slots: arguments whose value is personal data by declaration.
        vocabulary: labels and choices of the recipe's own, which stay as they are.
        extra: further Presidio recognizers, such as a trained one for names.

    Raises:
        ConfigError: a type in `config` that no recognizer brings.
    """

    def __init__(
        self,
        config: ScrubConfig,
        key: bytes,
        slots: Slots | None = None,
        vocabulary: frozenset[str] = frozenset(),
        extra: "list[EntityRecognizer] | None" = None,
    ) -> None:
        known = {*PII_TYPES, *config.ner.labels.values()}
        known.update(kind for recognizer in extra or [] for kind in recognizer.supported_entities)
        unknown = sorted(set(config.types or ()) - known)
        if unknown:
            raise ConfigError(f"scrub.types: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        self.wanted = Wanted(frozenset(config.types or known), config.min_score, slots or {}, vocabulary)
        self.pseudonyms = Pseudonymizer(key)
        self._ner, self._extra = config.ner, extra
        self.analyzer = Analyzer(config.ner, extra)
        self.digest = sha256_text(
            canonical_json(
                {
                    "config": config.model_dump(mode="json"),
                    "slots": self.wanted.slots,
                    "vocabulary": sorted(vocabulary),
                    "key": self.pseudonyms.key_digest,
                    "analyzer": self.analyzer.version,
                    "code": scrubbing_digest(),
                }
            )
        )[:16]

    def __getstate__(self) -> dict[str, Any]:
        """All but a loaded model: who unpickles it loads it anew."""
        return {**self.__dict__, "analyzer": Analyzer(self._ner, self._extra)}

    def scrub_event(self, event: dict[str, Any]) -> ScrubbedEvent | Quarantined:
        """Scrub one raw event by itself."""
        return self.scrub([event]).records[0]

    def scrub(self, events: Sequence[dict[str, Any]], others: Mapping[str, Collection[Form]] | None = None) -> Scrubbed:
        """Scrub raw events of any devices: a value found in one event is replaced in all of its device's.

        `others` holds, by device pseudonym, what was found in events of that device that are not among these. However
        a device's events are divided, each comes out the same if it is told what the others hold; and only those
        values matter to it that stand in one of its texts.
        """
        readings = read_events(events, self.wanted, self.analyzer.find_many)
        done = Scrubbed([])
        groups = [self.pseudonyms.group(r.event.device_id) if isinstance(r, Reading) else None for r in readings]
        for group, reading in zip(groups, readings, strict=True):
            if isinstance(reading, Reading) and group:
                done.values.update({(value, reading.region): count for value, count in reading.values.items()})
                done.shared.setdefault(group, set()).update(v.form for v in reading.values if v.shared)
        spread = {group: forms.union((others or {}).get(group, ())) for group, forms in done.shared.items()}
        drafts = [
            _Draft(reading, self.pseudonyms, spread[group], self.wanted.vocabulary)
            for group, reading in zip(groups, readings, strict=True)
            if isinstance(reading, Reading) and group
        ]
        self._settle([draft for draft in drafts if not draft.residue])
        written = iter(drafts)
        for group, reading in zip(groups, readings, strict=True):
            if isinstance(reading, Quarantined):
                done.records.append(reading)
            else:
                done.records.append(self._write(next(written), str(group), done))
            done.groups.append(group)
        return done

    def find(self, text: str, region: str = "US") -> list[Span]:
        """Disjoint spans of the wanted types in one text, in order: what would be replaced."""
        text = clean_text(text)
        return self.wanted.of(self.wanted.sure(text, self.analyzer.find(text, region)))

    def _settle(self, drafts: "list[_Draft]") -> None:
        """Look again at what was changed: some things only stand out once their neighbours are gone."""
        open_ones = [(draft, text) for draft in drafts for text in draft.changed]
        for _ in range(_ROUNDS):
            found = self.analyzer.find_many([d.now[t] for d, t in open_ones], [d.reading.region for d, _ in open_ones])
            still_open = []
            for (draft, text), spans in zip(open_ones, found, strict=True):
                now = draft.now[text]
                sure = self.wanted.sure(now, spans)
                more = self.wanted.of(sure)
                if more:
                    draft.substitute(text, more)
                    still_open.append((draft, text))
                else:
                    draft.residue = draft.residue or self.wanted.residue(now, spans, sure)
            open_ones = still_open
        for draft, _ in open_ones:
            draft.residue = draft.residue or "no end of finds in one text"

    def _write(self, draft: "_Draft", group: str, done: Scrubbed) -> ScrubbedEvent | Quarantined:
        event = draft.reading.event
        if draft.residue:
            return Quarantined(stage="scrub", reason="unclear residue", detail=draft.residue, event_id=event.event_id)
        scrubbed = _written(draft, group)
        leaked = count_leaks(scrubbed, draft.values)
        if leaked:
            done.leaked[len(done.records)] = leaked
            return Quarantined(
                stage="scrub",
                reason="a found value survived",
                detail=f"{leaked} occurrences",
                event_id=event.event_id,
            )
        return scrubbed


class _Draft:
    """An event while it is rewritten: every text of it as it stands now, and what was replaced in it, by type."""

    def __init__(
        self, reading: Reading, pseudonyms: Pseudonymizer, shared: set[Form], vocabulary: frozenset[str]
    ) -> None:
        self.reading = reading
        more = sorted(shared.difference(value.form for value in reading.values))
        self.values = [*reading.values, *(Value(text, kind) for kind, text in more)]
        self.residue = reading.residue
        self.found: dict[str, Counter[str]] = {}
        self._pseudonyms = pseudonyms
        self.now = {text: text for text in texts_of(reading.event)}
        self.changed: list[str] = []
        own = set(reading.values)
        for text in [] if self.residue else [text for text in self.now if text not in vocabulary]:
            hits = list(find_values(text, self.values))
            spans = reading.spans.get(text, [])
            if hits or spans:
                self.changed.append(text)
                self.substitute(text, _arranged(text, spans, hits, own))

    def substitute(self, text: str, spans: Iterable[Span]) -> None:
        """Put placeholders in the place of disjoint spans of what `text` is now."""
        now, pieces, at = self.now[text], [], 0
        counts = self.found.setdefault(text, Counter())
        for span in spans:
            normal = normalise(span.type, now[span.start : span.end], self.reading.region)
            placeholder = self._pseudonyms.placeholder(self.reading.event.device_id, span.type, normal)
            pieces += [now[at : span.start], placeholder]
            counts[span.type] += 1
            at = span.end
        self.now[text] = "".join(pieces) + now[at:]


def _written(draft: _Draft, group: str) -> ScrubbedEvent:
    """The event with its texts replaced, and without what is no text, number or version."""
    event, found = draft.reading.event, Counter[str]()

    def text_of(text: str) -> str:
        found.update(draft.found.get(text, {}))
        return draft.now[text]

    def content_of(content: str) -> str:
        return rewritten(content, text_of)

    def calls_of(calls: list[ToolCall]) -> list[ToolCall]:
        return [ToolCall(name=c.name, arguments=mapped(c.arguments, text_of)) for c in calls]

    given = event.feedback.corrected()
    correction = Correction(content=content_of(given.content), tool_calls=calls_of(given.tool_calls)) if given else None
    adapter = event.adapter
    return ScrubbedEvent(
        event_id=event.event_id,
        group=group,
        ts=event.ts,
        app_version=safe_tag(event.app_version),
        locale=safe_tag(event.locale),
        adapter=AdapterTag(skill=adapter.skill, version=safe_tag(adapter.version), arm=safe_tag(adapter.arm)),
        consent=event.consent,
        messages=[
            Message(role=m.role, content=content_of(m.content), tool_calls=calls_of(m.tool_calls))
            for m in event.messages
        ],
        feedback=Feedback(rating=event.feedback.rating, correction=correction),
        metrics={k: v for k, v in event.metrics.items() if SAFE_TAG.fullmatch(k) and isinstance(v, (int, float))},
        found=dict(sorted(found.items())),
    )


def _arranged(text: str, spans: list[Span], hits: list[tuple[Span, Value]], own: set[Value]) -> list[Span]:
    """Finds and verbatim values of one text made disjoint.

    A name in the event's own call comes first, so that the call's "Anna" is the same placeholder as in the message's
    "Anna Kowalska"; but not where it stands inside something of another type, such as an e-mail address.
    """
    placeholders = [Span(m.start(), m.end(), "") for m in PLACEHOLDER.finditer(text)]
    others = spans + [span for span, value in hits if value.kind not in CONTAINED]
    inner = [
        span
        for span, value in hits
        if value.slot and value.kind in CONTAINED and value in own and not _inside_another_kind(span, others)
    ]
    return [s for s in settle(text, [*spans, *(span for span, _ in hits)], [*placeholders, *inner]) if s.type]


def _inside_another_kind(span: Span, spans: Iterable[Span]) -> bool:
    """Whether a name stands inside an e-mail address or the like, which is then replaced as a whole."""
    return any(o.start <= span.start and span.end <= o.end and o.type != span.type for o in spans)


def scrubbing_digest() -> str:
    """Digest of this package's own files and of the libraries whose data it reads: what a cached result depends on."""
    from importlib.metadata import version

    package = resources.files("pocketloop.privacy")
    found = [p for p in package.iterdir() if p.name.endswith((".py", ".txt")) and p.name not in _NOT_SCRUBBING]
    found += [p for p in package.joinpath("ner").iterdir() if p.name.endswith(".py")]
    files = sorted((p.name, p.read_text(encoding="utf-8")) for p in found)
    return sha256_text(canonical_json([files, *(version(name) for name in ("faker", "phonenumbers"))]))
