"""A made-up planner: what comes first, in which order, which slot, what to pack, as a short structured text."""

from random import Random

from pocketloop.contracts.examples import Check, InOrder, SaysNoneOf, SaysOneOf
from pocketloop.data.demo._random import Split
from pocketloop.data.demo.exchange import Exchange, part, say

ERRANDS = """bank; dentist; post office; gym; library; market; bakery; pharmacy; barber; school; garage; town hall;
cleaner; hardware store; florist; vet; station; optician; bookshop; airport; clinic; hotel; museum; cinema; office;
kindergarten; swimming pool; recycling yard; butcher; music lesson; choir; tailor; theatre; supermarket"""
ITEMS = """passport; towel; charger; tent; boots; raincoat; sunglasses; toothbrush; sleeping bag; map; camera; gloves;
water bottle; hat; scarf; laptop; swimsuit; umbrella; lamp; first-aid kit; snacks; headphones; socks; pillow; rope;
blanket; tickets; notebook; sandals; jacket; cooker; helmet; binoculars; compass"""
TRIPS = """the hike; the beach; my business trip; the camping weekend; the flight; the ski trip; the festival;
the picnic; the boat trip; the city tour; the sleepover; the long train ride; the bike tour; the conference"""
WINDOWS = {"morning": (8, 11), "afternoon": (13, 16), "evening": (18, 21)}

_ORDER: dict[Split, tuple[str, ...]] = {
    "train": (
        "Put these in order: {a}, {b}, {c}.",
        "Plan my day: {a}, {b} and {c}.",
        "I have {a}, {b} and {c}. In which order do I go?",
        "Sort my errands by time: {a}, {b}, {c}.",
    ),
    "heldout": ("Make a schedule from {a}, {b} and {c}.", "What is the right sequence of {a}, {b}, {c}?"),
}
_FIRST: dict[Split, tuple[str, ...]] = {
    "train": (
        "Which comes first: {a}, {b} or {c}?",
        "Where do I have to be first: {a}, {b}, {c}?",
        "What is my earliest errand: {a}, {b}, {c}?",
    ),
    "heldout": ("My stops are {a}, {b} and {c}. Where do I start?", "Which of these is the earliest: {a}, {b}, {c}?"),
}
_SLOT: dict[Split, tuple[str, ...]] = {
    "train": (
        "Free are {a}, {b} and {c}. Which slot is in the {window}?",
        "I need a slot in the {window}; there are {a}, {b}, {c}.",
        "Pick a time in the {window}: {a}, {b} or {c}.",
    ),
    "heldout": (
        "I can only come in the {window}. They offer {a}, {b} and {c}.",
        "Of {a}, {b} and {c}, which suits the {window}?",
    ),
}
_PACK: dict[Split, tuple[str, ...]] = {
    "train": (
        "For {trip} I need {a}, {b} and {c}. Make a packing list.",
        "Write a packing list for {trip}: {a}, {b}, {c}.",
        "I am packing {a}, {b} and {c} for {trip}. List them.",
    ),
    "heldout": (
        "List what goes into the bag for {trip}: {a}, {b} and {c}.",
        "Packing for {trip}: {a}, {b}, {c}, please.",
    ),
}


def exchange(rng: Random, split: Split) -> Exchange:
    """One request of the four kinds, in equal shares."""
    return rng.choice((_order, _first, _slot, _pack))(rng, split)


def _stops(rng: Random, split: Split) -> list[tuple[str, int]]:
    """Three errands with different times in minutes, in the order in which they are said."""
    times = [60 * hour + rng.choice((0, 15, 30, 45)) for hour in rng.sample(range(7, 22), 3)]
    return list(zip(rng.sample(part(ERRANDS, split), 3), times, strict=True))


def _order(rng: Random, split: Split) -> Exchange:
    stops = _stops(rng, split)
    places = sorted(stops, key=lambda stop: stop[1])
    answer = "\n".join(f"{number}. {place} {_clock(time)}" for number, (place, time) in enumerate(places, 1))
    return Exchange(say(rng, _ORDER[split], **_abc(stops)), answer, [InOrder(lines=[place for place, _ in places])])


def _first(rng: Random, split: Split) -> Exchange:
    stops = _stops(rng, split)
    (place, time), *later = sorted(stops, key=lambda stop: stop[1])
    checks: list[Check] = [SaysOneOf(any=[place]), SaysNoneOf(any=[other for other, _ in later])]
    return Exchange(say(rng, _FIRST[split], **_abc(stops)), f"First: {place} {_clock(time)}", checks)


def _slot(rng: Random, split: Split) -> Exchange:
    times = {name: 60 * rng.randint(*hours) + rng.choice((0, 15, 30, 45)) for name, hours in WINDOWS.items()}
    window = rng.choice(list(WINDOWS))
    said = rng.sample([_clock(time) for time in times.values()], 3)
    right = _clock(times[window])
    asked = say(rng, _SLOT[split], **dict(zip("abc", said, strict=True)), window=window)
    checks: list[Check] = [SaysOneOf(any=[right]), SaysNoneOf(any=[time for time in said if time != right])]
    return Exchange(asked, f"Slot: {right}", checks)


def _pack(rng: Random, split: Split) -> Exchange:
    items = rng.sample(part(ITEMS, split), 3)
    asked = say(rng, _PACK[split], **dict(zip("abc", items, strict=True)), trip=rng.choice(part(TRIPS, split)))
    return Exchange(asked, "\n".join(f"- {item}" for item in items), [InOrder(lines=items)])


def _abc(stops: list[tuple[str, int]]) -> dict[str, str]:
    return {letter: f"{place} {_clock(time)}" for letter, (place, time) in zip("abc", stops, strict=True)}


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"
