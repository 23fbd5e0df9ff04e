"""Typed values that the corpus puts into sentences and asks back: names, times, dates, amounts, codes."""

import random
from collections.abc import Callable

from pocketloop.models.tiny.words import Words

UNITS = "zero one two three four five six seven eight nine ten eleven twelve".split()
TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = "january february march april may june july august september october november december".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
FIRST_NAMES = (
    "james mary john linda robert susan michael karen david lisa anna peter laura paul emma jack olivia noah mia "
    "liam ava lucas sofia hugo elena marco giulia pierre chloe hans greta lars ingrid ivan olga yuki kenji mei wei "
    "ravi priya omar fatima ali leila carlos maria diego lucia kwame amina tariq nadia sven astrid tomas eva"
).split()


def number_word(n: int) -> str:
    """English name of a whole number from 0 to 99."""
    if n < 20:
        return (UNITS + TEENS)[n]
    tens, unit = divmod(n, 10)
    return TENS[tens - 2] + (f" {UNITS[unit]}" if unit else "")


def person(w: Words) -> str:
    """A first name, often with a last name; real, rare or made up."""
    rng = w.rng

    def part() -> str:
        roll = rng.random()
        if roll < 0.3 and not w.evaluation:
            return rng.choice(FIRST_NAMES)
        return w.invented() if roll < 0.65 else w.rare()

    parts = [part() for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    if rng.random() < 0.02:
        parts = [w.foreign()]
    name = " ".join(parts)
    return name if rng.random() < 0.35 else " ".join(p[:1].upper() + p[1:] for p in parts)


def relation(w: Words) -> str:
    """A person by relation: my aunt, the neighbor."""
    who = (
        "mother father sister brother uncle aunt boss neighbor teacher landlord doctor roommate friend wife husband son"
    )
    return f"{w.rng.choice(('my', 'the', 'our'))} {w.rng.choice(who.split())}"


def place(w: Words) -> str:
    """A town, a street or a spot."""
    rng = w.rng
    name = w.rare() if rng.random() < 0.5 else w.invented()
    if rng.random() < 0.25:
        name += " " + rng.choice("bay city hill street park lake road valley beach square island springs".split())
    if rng.random() < 0.1:
        name = rng.choice("new port saint north san lake fort el upper".split()) + " " + name
    if rng.random() < 0.1:
        name = f"{rng.randint(1, 999)} {name}"
    return name if rng.random() < 0.4 else " ".join(p[:1].upper() + p[1:] for p in name.split())


def clock(w: Words) -> str:
    """A time of day in one of the usual spellings."""
    rng = w.rng
    hour, minute = rng.randint(1, 12), rng.randrange(0, 60)
    half = rng.choice(("am", "pm", "a.m.", "p.m.", "AM", "PM"))
    return rng.choice(
        (
            f"{hour} {half}",
            f"{hour}{half}",
            f"{hour}:{minute:02d} {half}",
            f"{hour}:{minute:02d}{half}",
            f"{rng.randint(0, 23):02d}:{minute:02d}",
            f"{number_word(hour)} o'clock",
            f"half past {number_word(hour)}",
            f"quarter {rng.choice(('to', 'past'))} {number_word(hour)}",
            f"{number_word(hour)} {rng.choice(('thirty', 'fifteen', 'forty five', 'twenty'))}",
            f"{number_word(hour)} in the {rng.choice(('morning', 'evening', 'afternoon'))}",
            rng.choice(("noon", "midnight", "sunrise", "lunchtime", "sunset")),
        )
    )


def date(w: Words) -> str:
    """A day in one of the usual spellings."""
    rng = w.rng
    day, month = rng.randint(1, 28), rng.randint(1, 12)
    name = MONTHS[month - 1]
    if rng.random() < 0.6:
        name = name.capitalize()
    weekday = rng.choice(DAYS)
    if rng.random() < 0.4:
        weekday = weekday.capitalize()
    year = rng.randint(1950, 2035)
    ending = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}.get(day, "th")
    return rng.choice(
        (
            weekday,
            weekday,
            f"next {weekday}",
            f"this {weekday}",
            rng.choice(("today", "tomorrow", "tonight", "yesterday", "this weekend", "next week", "next month")),
            rng.choice(("the day after tomorrow", "this evening", "tomorrow morning", "the end of the month")),
            f"{weekday} {rng.choice(('morning', 'evening', 'afternoon', 'night'))}",
            f"{name} {day}",
            f"{name} {day}{ending}",
            f"the {day}{ending} of {name}",
            f"{day} {name} {year}",
            f"the {rng.choice(ORDINALS)} of {name}",
            f"{year}-{month:02d}-{day:02d}",
            f"{month}/{day}/{year}",
            f"{month}/{day}",
            f"{name} {year}",
        )
    )


def duration(w: Words) -> str:
    """A length of time."""
    rng = w.rng
    n = rng.randint(2, 90)
    unit = rng.choice("seconds minutes minutes hours hours days weeks months years min hrs".split())
    count = str(n) if rng.random() < 0.55 else number_word(n)
    return rng.choice(
        (f"{count} {unit}",) * 5 + ("half an hour", "an hour", "an hour and a half", f"{n} and a half {unit}")
    )


def number(w: Words) -> str:
    """A whole number in digits or in words (below 100)."""
    rng = w.rng
    if rng.random() < 0.4:
        return number_word(rng.randint(0, 99))
    return str(rng.randint(0, rng.choice((10, 30, 100, 1000, 50_000))))


def money(w: Words) -> str:
    """An amount of money."""
    n = w.rng.randint(1, w.rng.choice((20, 300, 5000)))
    unit = w.rng.choice("dollars euros pounds bucks cents yen".split())
    return w.rng.choice(
        (f"${n}", f"{n} {unit}", f"€{n}", f"{n}.{w.rng.randint(10, 99)}", f"{number_word(n % 100)} {unit}")
    )


def code(w: Words) -> str:
    """Identifiers: order codes, placeholders in angle brackets, phone numbers, addresses of mail and web."""
    rng = w.rng

    def hexes(n: int) -> str:
        return "".join(rng.choice("0123456789abcdef") for _ in range(n))

    def digits(n: int) -> str:
        return "".join(rng.choice("0123456789") for _ in range(n))

    return rng.choice(
        (
            f"<{w.any().upper()}_{hexes(6)}>",
            f"<{rng.choice(('NAME', 'PLACE', 'ITEM', 'CODE', 'USER'))}_{hexes(6)}>",
            f"{w.any().upper()[:3]}-{digits(rng.randint(3, 6))}",
            f"{digits(3)}-{digits(4)}",
            f"+{digits(2)} {digits(3)} {digits(3)} {digits(3)}",
            f"{w.any()}.{w.any()}@{w.any()}.{rng.choice(('com', 'org', 'net'))}",
            f"www.{w.any()}.{rng.choice(('com', 'org', 'io'))}",
            f"{w.any()}_{w.any()}",
            f"{w.any()}.{rng.choice(('txt', 'pdf', 'jpg', 'csv'))}",
            digits(rng.randint(4, 10)),
            f"{rng.randint(1, 100)}%",
            f"{rng.randint(1, 40)}.{digits(1)}",
        )
    )


def color(w: Words) -> str:
    """A color, sometimes with a shade."""
    shade = w.rng.choice(("", "", "", "dark ", "light ", "pale ", "bright "))
    return shade + w.rng.choice(
        "red blue green yellow purple orange pink brown grey black white teal golden silver".split()
    )


def title(w: Words) -> str:
    """A name for a thing: one to five words."""
    return w.phrase(1, 5)


def clause(w: Words) -> str:
    """A short sentence in lower case, as one dictates it."""
    rng = w.rng
    topic = w.topic()
    noun, other = rng.choice(topic.nouns), rng.choice(topic.nouns)
    verb = rng.choice(topic.verbs)
    adjective = rng.choice(topic.adjectives)
    return rng.choice(
        (
            f"the {noun} is {adjective}",
            f"i will {verb} the {noun} {date(w)}",
            f"we need more {noun}",
            f"{person(w)} has the {noun}",
            f"please {verb} the {other}",
            f"i am {adjective} and the {noun} is {rng.choice(('gone', 'here', 'late', 'ready', w.any()))}",
            f"do not forget the {noun}",
            f"see you at {clock(w)}",
            f"can you {verb} my {w.rare()} {noun}",
            f"{verb} the {noun} and the {other}",
            f"are you {adjective}",
            f"thanks for the {w.any()} {noun}",
        )
    )


def amount(w: Words) -> str:
    """A quantity with its unit."""
    rng = w.rng
    unit = rng.choice(
        "liters kilos grams miles kilometers pages cups bottles boxes slices pieces degrees percent".split()
    )
    return f"{number(w)} {unit}"


def adjective(w: Words) -> str:
    """A describing word."""
    return w.rng.choice(w.topic().adjectives)


Maker = Callable[[Words], str]

# kind -> (key names it goes by, how a sentence introduces it, maker)
KINDS: dict[str, tuple[list[str], list[str], Maker]] = {
    "person": (
        "person name who contact recipient guest owner customer member author client to_whom".split(),
        ["for {}", "with {}", "from {}", "to {}", "by {}", "of {}"],
        lambda w: person(w) if w.rng.random() < 0.85 else relation(w),
    ),
    "place": (
        "place city town location where destination address region area site".split(),
        ["in {}", "near {}", "to {}", "from {}", "at {}", "around {}", "close to {}"],
        place,
    ),
    "time": (
        "time hour at start start_time clock when".split(),
        ["at {}", "by {}", "before {}", "after {}", "for {}"],
        clock,
    ),
    "date": ("date day on due when_day".split(), ["on {}", "{}", "for {}", "by {}", "until {}", "{}"], date),
    "duration": (
        "duration length how_long period span".split(),
        ["for {}", "lasting {}", "in {}", "every {}", "of {}", "over {}"],
        duration,
    ),
    "count": (
        "count number quantity how_many total size".split(),
        ["{} of them", "{} times", "with {} copies", "for {} people"],
        number,
    ),
    "money": (
        "price cost fee sum budget".split(),
        ["for {}", "under {}", "worth {}", "at most {}", "costing {}"],
        money,
    ),
    "code": (
        "code id reference number_id link file".split(),
        ["with code {}", "number {}", "id {}", "under {}", "{}"],
        code,
    ),
    "color": ("color colour shade".split(), ["in {}", "painted {}", "that is {}", "colored {}"], color),
    "title": (
        "title name label topic subject item thing query what object".split(),
        ["called {}", "named {}", "titled {}", 'called "{}"', "about {}", "'{}'", "labeled {}", "{}", '"{}"', "{}"],
        title,
    ),
    "text": (
        "text content body note words comment".split(),
        ["saying {}", "that says {}", "with the text {}", 'with the words "{}"', ": {}", "that {}", '"{}"'],
        clause,
    ),
    "amount": ("amount measure quantity volume".split(), ["of {}", "{}", "with {}", "about {}"], amount),
    "style": (
        "style type kind mood quality".split(),
        ["that is {}", "of type {}", "in {} style", "something {}"],
        adjective,
    ),
}


def draw(rng: random.Random, w: Words, kind: str) -> str:
    """One value of `kind`."""
    return KINDS[kind][2](w)
