"""Writing sentences: slots are filled with values, and the whole is said politely, tersely, or with typos."""

import re
from dataclasses import dataclass, field
from random import Random

from pocketloop.data.demo import people
from pocketloop.data.demo._random import Split
from pocketloop.data.demo.grammar import SLOT, Template, choose, kinds
from pocketloop.data.demo.people import PERSONAL_KINDS, Person, Persona
from pocketloop.data.demo.styling import Piece, Spans, Value, joined, marked, styled
from pocketloop.data.demo.times import moments

INTEGERS = {
    "percent": range(5, 101, 5),
    "degrees": range(14, 31),
    "count": range(2, 13),
    "servings": range(2, 13),
    "kilos": range(45, 121),
    "pounds": range(100, 261),
    "glasses": range(2, 10),
    "milliliters": range(100, 1001, 50),
    "steps": range(1000, 25001, 50),
    "hours": range(4, 12),
    "beats": range(48, 161),
    "minutes": range(5, 91, 5),
}
"""Kinds that are numbers, written as digits and taken as integers."""

CLOSED = frozenset({*INTEGERS, "date", "day", "weekday", "weekday_next", "room", "door", "list", "genre", "diet"})
"""Kinds with a small vocabulary that both splits share."""

_FRAMES: dict[Split, tuple[str, ...]] = {
    "train": (
        "please {}",
        "(can|could) you {}?",
        "(can|could) you please {}?",
        "hey, {}",
        "{} please",
        "{}, thanks",
        "i want you to {}",
        "i need you to {}",
        "ok, {}",
        "now {}",
        "would you {}?",
        "go ahead and {}",
    ),
    "heldout": (
        "(would|could) you kindly {}?",
        "hi, {}",
        "alright, {}",
        "just {}",
        "i'd like you to {}",
        "{} for me please",
    ),
}
_OPEN_ENDED = ("{body}", "{task}", "{title}", "{item}", "{dish}", "{song}", "{artist}", "{destination}")
_DATE = re.compile(r"(for |of )?\{(\w+):date_span\}")
_NAMES = {"contact", "fullname", "PERSON"}


@dataclass
class Said:
    """A written sentence, the personal data in it, and its slots as they stand there."""

    text: str
    spans: Spans
    slots: dict[str, Value] = field(default_factory=dict)


class Writer:
    """Fills slots with values of one split; with a persona, with what that person would say.

    `swaps` maps a kind to (another kind, rate): in the fleet, some message bodies are ones with personal data.
    """

    def __init__(
        self,
        rng: Random,
        split: Split,
        persona: Persona | None = None,
        swaps: dict[str, tuple[str, float]] | None = None,
    ) -> None:
        self.rng = rng
        self.split = split
        self.persona = persona
        self.swaps = swaps or {}
        self._talked_of: Person | None = None

    def value(self, kind: str) -> Value:
        """A value of `kind`; of an open kind, never one that both splits could hold."""
        if kind in self.swaps and self.rng.random() < self.swaps[kind][1]:
            kind = self.swaps[kind][0]
        for _ in range(30):
            value = self._draw(kind)
            if value.fresh or self.split == "train" or kind in CLOSED:
                break
        return value

    def _draw(self, kind: str) -> Value:
        if kind in INTEGERS:
            number = self.rng.choice(INTEGERS[kind])
            return Value(str(number), number)
        if kind in ("time", "duration", "calendar_day"):
            return Value(self.rng.choice(self.rng.choice(moments(kind, self.split))), fresh=True)
        if kind == "contact" and self.rng.random() < 0.18:
            return self._draw("contact_role")
        found = kinds().get(kind)
        if found is None:
            return self._personal(kind)
        surface, argument = self.rng.choice(found.entries[self.split])
        if "{" not in surface:
            return Value(surface, argument, fresh=found.split)
        pieces = self._fill(surface, {})
        text, spans = joined(pieces)
        fresh = found.split or any(piece.fresh for _, piece in pieces if piece is not None)
        return Value(text, argument, tuple(spans), fresh)

    def _someone(self) -> Person:
        if self.persona and self.rng.random() < 0.9:
            return self.rng.choice(self.persona.contacts)
        locale = self.persona.me.locale if self.persona else None
        return people.stranger(self.rng, self.split, locale)

    def _personal(self, kind: str) -> Value:
        """A name, a number or another value that is personal data."""
        if kind in _NAMES:
            self._talked_of = self._someone()
            short = 0.0 if kind == "fullname" else 0.55
            name = self._talked_of.first if self.rng.random() < short else self._talked_of.full
            return marked(name, "PERSON")
        owner = self._talked_of
        if owner is None:
            owner = self.persona.me if self.persona and self.rng.random() < 0.5 else self._someone()
        if kind in ("phone", "PHONE_NUMBER"):
            return marked(owner.phone, "PHONE_NUMBER")
        if kind in ("email", "EMAIL_ADDRESS"):
            return marked(owner.email, "EMAIL_ADDRESS")
        if kind in ("address", "ADDRESS"):
            return marked(owner.address, "ADDRESS")
        if kind not in PERSONAL_KINDS:
            raise KeyError(f"templates name a kind of value that nobody makes: {kind}")
        if self.persona:
            return marked(self.persona.values[kind], kind)
        return marked(people.personal_value(kind, owner, self.rng, self.split), kind)

    def _fill(self, text: str, known: dict[str, Value], slots: dict[str, str] | None = None) -> list[Piece]:
        """Cut a template into literal and filled pieces; values of `known` are taken, new ones are added to it."""
        self._talked_of = None
        matches = list(SLOT.finditer(text))
        kinds_of = [match[2] or (slots or {}).get(match[1], match[1]) for match in matches]
        filled: dict[int, Value] = {}
        # Names come first: the number or the mail beside a name is that person's.
        for place in sorted(range(len(matches)), key=lambda i: kinds_of[i] not in _NAMES):
            name = matches[place][1]
            if name not in known or slots is None:
                known[name] = self.value(kinds_of[place])
            filled[place] = known[name]
        pieces: list[Piece] = []
        last = 0
        for place, match in enumerate(matches):
            literal = text[last : match.start()]
            if literal.endswith((" a ", "a ")) and literal[-3:-2] in ("", " ") and filled[place].text[:1] in "aeiou":
                literal = literal[:-1] + "n "
            if literal:
                pieces.append((literal, None))
            pieces.append((match[1], filled[place]))
            last = match.end()
        if last < len(text):
            pieces.append((text[last:], None))
        return pieces

    def say(
        self,
        template: Template,
        slots: dict[str, str],
        known: dict[str, Value] | None = None,
        style: str | None = None,
    ) -> Said:
        """Write a template as a person would; `slots` maps slot names to kinds of values where they differ.

        `style` is "clean", "bare" (no capital, no full stop), "lower" (everything small) or "typo"; by default most
        sentences are clean or bare.
        """
        text = template.text
        if template.imperative and self.rng.random() < 0.4:
            frame = self.rng.choice(_FRAMES[self.split])
            if frame.startswith("{}") and (text.endswith(_OPEN_ENDED) or len(text.split()) > 9):
                frame = "please {}" if self.split == "train" else "hi, {}"
            text = frame.replace("{}", text.removesuffix("?"))
        text = choose(_DATE.sub(self._when, text), self.rng)
        pieces = self._fill(text, dict(known or {}), slots)
        style = style or self.rng.choices(["clean", "bare", "lower", "typo"], [50, 30, 12, 8])[0]
        pieces = styled(pieces, style, self.rng)
        written, spans = joined(pieces)
        return Said(written, spans, {name: value for name, value in pieces if value is not None})

    def _when(self, match: re.Match[str]) -> str:
        """A slot for a date that may stand alone ("tomorrow") or after "on" ("on Friday")."""
        if self.rng.random() < 0.6:
            return f"{match[1] or ''}{{{match[2]}:date}}"
        return f"{match[1] or 'on '}{{{match[2]}:day}}"

    def compose(self, text: str, known: dict[str, Value] | None = None) -> Said:
        """Fill a sentence and leave it as it is written."""
        pieces = self._fill(choose(text, self.rng), dict(known or {}), {})
        written, spans = joined(pieces)
        return Said(written, spans, {name: value for name, value in pieces if value is not None})
