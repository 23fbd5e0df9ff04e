"""Made-up sums in words, small enough for a model of a few million parameters: add, subtract, compare."""

from random import Random

from pocketloop.contracts.examples import Check, EndsWithNumber, SaysOneOf
from pocketloop.data.demo._random import Split, part_of
from pocketloop.data.demo.exchange import Exchange, part, say

NAMES = """Ada; Ben; Cleo; Dan; Eva; Finn; Gus; Hana; Ivo; Jana; Karl; Lea; Max; Nora; Omar; Pia; Quinn; Rosa; Sam;
Tara; Uma; Vera; Willi; Yara; Zoe; Anton; Bela; Carla; Dora; Emil; Frida; Greta"""
THINGS = """apples; books; coins; stamps; marbles; eggs; pens; cards; shells; stickers; plums; balls; keys; cups;
roses; nuts; cookies; photos; candles; buttons; bricks; pears; tickets; beads"""

_ADD: dict[Split, tuple[str, ...]] = {
    "train": (
        "What is {a} plus {b}?",
        "{a} + {b}",
        "Add {a} and {b}.",
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "There are {a} {things} on the table and {b} in the bag. How many are there in all?",
        "I read {a} pages today and {b} yesterday. How many pages is that?",
        "{name} has {a} {things}, {other} has {b}. How many do they have together?",
    ),
    "heldout": (
        "What is the sum of {a} and {b}?",
        "{name} picks {a} {things} in the morning and {b} in the evening. What is the total?",
        "Put {a} {things} to {b} other {things}. How many is that altogether?",
    ),
}
_SUBTRACT: dict[Split, tuple[str, ...]] = {
    "train": (
        "What is {a} minus {b}?",
        "{a} - {b}",
        "{name} has {a} {things} and gives {b} away. How many are left?",
        "I had {a} {things} and lost {b}. How many do I still have?",
        "There were {a} {things}; {other} took {b}. How many are left?",
    ),
    "heldout": (
        "How much is {a} take away {b}?",
        "{name} bakes {a} cookies and sells {b}. How many remain?",
        "If {a} {things} stand on a shelf and {b} fall down, how many stay there?",
    ),
}
_COMPARE: dict[Split, tuple[str, ...]] = {
    "train": (
        "Which is bigger, {a} or {b}?",
        "Is {a} more than {b}?",
        "What is more, {a} {things} or {b} {things}?",
        "Compare {a} and {b}.",
    ),
    "heldout": ("Of {a} and {b}, which number is larger?", "Who has the higher score, the one with {a} or with {b}?"),
}


def exchange(rng: Random, split: Split) -> Exchange:
    """One problem; half have one-digit numbers, the rest stay below a hundred. No pair of numbers is in both parts."""
    kind = rng.choice(("add", "subtract", "compare"))
    a, b = _numbers(rng, split, kind)
    name, other = rng.sample(part(NAMES, split), 2)
    values = {"a": a, "b": b, "name": name, "other": other, "things": rng.choice(part(THINGS, split))}
    if kind == "compare":
        right = f"{max(a, b)} > {min(a, b)}"
        return Exchange(say(rng, _COMPARE[split], **values), right, [SaysOneOf(any=[right])])
    sign, value, templates = ("+", a + b, _ADD) if kind == "add" else ("-", a - b, _SUBTRACT)
    checks: list[Check] = [EndsWithNumber(value=value)]
    return Exchange(say(rng, templates[split], **values), f"{a} {sign} {b} = {value}", checks)


def _numbers(rng: Random, split: Split, kind: str) -> tuple[int, int]:
    most = 9 if rng.random() < 0.5 else 99
    while True:
        a, b = rng.randint(1, most), rng.randint(1, most)
        low, high = sorted((a, b))
        if part_of(f"{low},{high}") != split or a == b or (kind == "add" and a + b > 99):
            continue
        return (high, low) if kind == "subtract" else (a, b)
