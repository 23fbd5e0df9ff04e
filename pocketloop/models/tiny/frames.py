"""Requests with typed values: a frame is a made-up function, one request for it, and the values in the request."""

import random
from dataclasses import dataclass, field
from typing import Any

from pocketloop.models.tiny.values import KINDS, TEENS, TENS, UNITS, draw
from pocketloop.models.tiny.words import Words

# A chat, as the tokenizer's template reads it, or running text under `text`.
Document = dict[str, Any]

VERBS = (
    "archive inspect compare rename sort merge split export import measure estimate translate summarize convert rotate "
    "label tag review approve reject assign transfer lend borrow return reserve rent hire sell purchase donate collect "
    "deliver pack load scan print copy mirror stack freeze boil paint wash repair replace inflate calibrate register "
    "enroll graduate audit verify count fetch locate trace follow pin blend mix pour plant water harvest feed "
    "train groom adopt award rank report flag mute publish draft quote cite fold cut weigh wrap ship refund open "
    "close record sketch build design test request demand watch borrow polish tune dispatch invite vote browse"
).split()
LEADS = (
    "", "", "", "", "please ", "can you ", "could you ", "i want to ", "i would like to ", "i'd like you to ",
    "i need to ", "help me ", "let's ", "would you ", "hey ", "kindly ", "i have to ", "we should ", "go ahead and ",
    "is it possible to ", "will you ", "just ", "hi, can you ", "ok ", "now ", "you should ", "please help me ",
)  # fmt: skip
TAILS = ("", "", "", "", "", "", " please", " thanks", " for me", " now", " if you can", " thank you", " right away")
INTEGER_KINDS = ("count",)


@dataclass
class Slot:
    """One value of a request: its key, its kind, the words around it, and the value in both forms."""

    key: str
    kind: str
    pattern: str
    text: str
    value: str | int

    @property
    def phrase(self) -> str:
        """The value with the words that introduce it."""
        return self.pattern.replace("{}", self.text)


@dataclass
class Frame:
    """A made-up function and one request for it."""

    name: str
    verb: str
    noun: str
    slots: list[Slot] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)

    def declaration(self) -> dict[str, Any]:
        """The function's declaration as chat templates take it (`tools=`)."""
        properties: dict[str, Any] = {}
        for slot in self.slots:
            kind: dict[str, Any] = {"type": "integer" if isinstance(slot.value, int) else "string"}
            if slot.key in self.options:
                kind["enum"] = self.options[slot.key]
            properties[slot.key] = kind
        function = {"name": self.name, "parameters": {"type": "object", "properties": properties}}
        return {"type": "function", "function": function}

    def arguments(self, present: list[Slot]) -> dict[str, str | int]:
        """The arguments that a request with these slots carries, in the order of the declaration."""
        return {s.key: s.value for s in self.slots if any(s is p for p in present)}


def as_integer(text: str) -> int | None:
    """The whole number from 0 to 99 that English words say, or the digits; None for anything else."""
    if text.isdigit():
        return int(text)
    parts = text.lower().split(" ")
    low = UNITS + TEENS
    if len(parts) == 1 and parts[0] in low:
        return low.index(parts[0])
    if parts[0] in TENS and (len(parts) == 1 or (len(parts) == 2 and parts[1] in UNITS)):
        return 20 + 10 * TENS.index(parts[0]) + (UNITS.index(parts[1]) if len(parts) == 2 else 0)
    return None


def function_name(rng: random.Random, verb: str, noun: str) -> str:
    """A name in one of the usual spellings."""
    roll = rng.random()
    if roll < 0.7:
        return f"{verb}_{noun}"
    if roll < 0.85:
        return verb.capitalize() + noun.capitalize()
    if roll < 0.92:
        return verb + noun.capitalize()
    return f"{noun}_{verb}" if roll < 0.97 else f"{noun}.{verb}"


def make_slot(w: Words, kind: str, taken: set[str], *, lower: bool, typed: bool = True) -> Slot:
    """A slot of `kind` with a fresh key. Named slots carry their key in the sentence, typed ones need not."""
    rng = w.rng
    names, patterns, _ = KINDS[kind]
    pattern = rng.choice(patterns)
    key = rng.choice(names)
    if not typed:
        key = rng.choice((w.common, w.rare, w.invented, lambda: rng.choice(w.topic().nouns)))()
        pattern = rng.choice(
            ("with {k} {}", "{k} {}", "{k}: {}", "the {k} is {}", "set {k} to {}", "{k} = {}", "{k} being {}")
        )
        pattern = pattern.replace("{k}", key)
    elif rng.random() < 0.15:
        key = f"{rng.choice(w.topic().nouns)}_{key}"
    while key in taken:
        key = key + rng.choice("_a _b 2 _x _name _value".split())
    taken.add(key)
    slot = Slot(key, kind, pattern, "", "")
    refill(w, slot, lower=lower, integer=kind in INTEGER_KINDS and rng.random() < 0.6)
    return slot


def refill(w: Words, slot: Slot, *, lower: bool, integer: bool) -> None:
    """Give the slot a fresh value."""
    text = draw(w.rng, w, slot.kind)
    if lower and slot.kind != "code":
        text = text.lower()
    slot.text = text
    whole = as_integer(text) if integer else None
    slot.value = text if whole is None else whole


def make_frame(w: Words, *, lower: bool, verb: str | None = None, most: int = 4) -> Frame:
    """A random function with one to `most` slots of different kinds, filled for one request."""
    rng = w.rng
    verb = verb or rng.choice(VERBS)
    noun = rng.choice(w.topic().nouns) if rng.random() < 0.85 else w.rare()
    frame = Frame(function_name(rng, verb, noun), verb, noun)
    kinds = rng.sample(list(KINDS), k=min(rng.randint(1, most), rng.randint(1, most) + 1))
    if rng.random() < 0.4 and "title" not in kinds:
        kinds[0] = "title"
    taken: set[str] = set()
    for kind in kinds:
        frame.slots.append(make_slot(w, kind, taken, lower=lower, typed=rng.random() < 0.8))
    if rng.random() < 0.2:
        choices = [a if rng.random() < 0.7 else w.any() for a in rng.sample(w.topic().adjectives + ("on", "off"), 3)]
        key = rng.choice("state mode level option kind".split())
        if key not in taken and len(set(choices)) == 3:
            chosen = rng.choice(choices)
            frame.slots.append(Slot(key, "option", rng.choice(("{}", "to {}", "as {}", "in {} mode")), chosen, chosen))
            frame.options[key] = choices
    return frame


def request(w: Words, frame: Frame, present: list[Slot], *, lower: bool) -> str:
    """A sentence that asks for the frame's function with the present slots."""
    rng = w.rng
    order = present[:]
    rng.shuffle(order)
    bare_last = rng.random() < 0.5
    order.sort(key=lambda s: s.kind == "text" or (bare_last and s.pattern == "{}" and s.kind == "title"))
    noun = frame.noun
    if rng.random() < 0.2:
        noun = f"{rng.choice(w.topic().adjectives)} {noun}"
    noun = rng.choice(("the ", "a ", "my ", "our ", "", "this ", "that ", "some ", "another ", "the ")) + noun
    front = ""
    if len(order) > 1 and order[0].kind in ("date", "time", "place", "person") and rng.random() < 0.2:
        front = order.pop(0).phrase + rng.choice((", ", " "))
    body = " ".join(s.phrase for s in order)
    roll = rng.random()
    lead = rng.choice(LEADS)
    if roll < 0.62:
        text = f"{front}{lead}{frame.verb} {noun} {body}"
    elif roll < 0.70:
        text = f"{front}{lead}{frame.verb} {body}"
    elif roll < 0.76:
        text = f"{front}{noun} {body}, {frame.verb} it"
    elif roll < 0.82:
        text = f"{front}{noun} to {frame.verb} {body}"
    elif roll < 0.88:
        will = rng.choice(("am going", "need someone", "plan", "forgot", "hope", "was told"))
        text = f"i {will} to {frame.verb} {noun} {front}{body}"
    elif roll < 0.94:
        question = rng.choice(("who can", "when do we", "how do i", "should i", "can we", "why not", "did they"))
        text = f"{front}{question} {frame.verb} {noun} {body}"
    else:
        text = f"{front}{frame.verb} {body} {rng.choice(('to', 'from', 'on', 'as'))} {noun}"
    return finished(rng, text + (rng.choice(TAILS) if not order or order[-1].kind != "text" else ""), lower=lower)


def finished(rng: random.Random, text: str, *, lower: bool) -> str:
    """The sentence with its spaces tidied and, unless all is lower case, a capital and a full stop."""
    text = " ".join(text.split(" ")).strip().replace("  ", " ")
    if lower:
        return text
    text = text[:1].upper() + text[1:]
    return text + rng.choice((".", "", "?", "!", ".", ""))


def some_slots(rng: random.Random, frame: Frame) -> list[Slot]:
    """Most of the frame's slots: each optional one is left out now and then, at least one stays."""
    present = [s for s in frame.slots if rng.random() < 0.85]
    return present or [rng.choice(frame.slots)]


def catalogue(size: int = 48, seed: int = 7) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Made-up functions that the corpus calls without declaring them: (name, verb, noun, [(key, kind)])."""
    w = Words(random.Random(seed))
    found: dict[str, tuple[str, str, str, list[tuple[str, str]]]] = {}
    while len(found) < size:
        frame = make_frame(w, lower=True)
        keys = [(s.key, s.kind) for s in frame.slots if s.kind != "option"]
        if keys:
            found.setdefault(frame.name, (frame.name, frame.verb, frame.noun, keys))
    return list(found.values())
