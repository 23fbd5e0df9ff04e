"""Labelled texts for the scrubber's audit: wordings, names and countries that nothing in the scrubber was made on."""

from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Any, Literal

from pocketloop.contracts.errors import DataError
from pocketloop.data.demo import people
from pocketloop.data.demo._random import rng_for
from pocketloop.data.demo.pii import PiiRow, PiiSpan
from pocketloop.data.demo.styling import Piece, Value, joined, marked, styled
from pocketloop.privacy.names import names_of, words_of_locales, words_of_name
from pocketloop.privacy.ner.corpus import TRAINING_LOCALES

Part = Literal["first", "second", "third", "final"]
_FAR = ("fi_FI", "cs_CZ", "ro_RO", "lt_LT", "yo_NG", "id_ID", "is_IS")
LOCALES: dict[Part, tuple[str, ...]] = {
    "first": ("nl_NL", "sv_SE", "hu_HU", "et_EE", "zu_ZA", "ga_IE"),
    "second": _FAR,
    "third": _FAR,
    "final": _FAR,
}
"""Of each set; a name that also occurs in a country of the training is not used."""
_ENGLISH_STREETS = ("en_US", "en_GB", "en_AU", "en_CA", "en_NZ", "en_IE")
_STREETS_OF = {
    "zu_ZA": "en_GB",
    "ga_IE": "en_IE",
    "et_EE": "en_GB",
    "lt_LT": "en_GB",
    "yo_NG": "en_GB",
    "is_IS": "en_GB",
}
"""Countries for which Faker has no addresses of their own."""
_TITLES = ("Dr. ", "Mrs. ", "Mr ", "Professor ", "Ms ")


def heldout_pii(part: Part, n: int, seed: int = 7) -> Iterator[PiiRow]:
    """`n` labelled texts of one set; a third holds no personal data. Same arguments, same texts."""
    personal, clean = _templates(part)
    for index in range(n):
        rng = rng_for("pii_heldout", part, seed, index)
        locale = rng.choice(LOCALES[part])
        template = rng.choice(clean if index % 3 == 2 else personal)
        pieces = styled(list(_pieces(template, rng, part, locale)), rng.choice(["clean", "bare", "bare", "lower"]), rng)
        text, spans = joined(pieces)
        yield PiiRow(text=text, spans=[PiiSpan(start=s, end=e, type=kind) for s, e, kind in spans], locale=locale)


def heldout_names(part: Part) -> frozenset[str]:
    """Every word of a name in this set, lower-cased: what a gazetteer must not know when the unknown is measured."""
    return words_of_locales(LOCALES[part]) - words_of_locales(TRAINING_LOCALES)


def _templates(part: Part) -> tuple[list[str], list[str]]:
    """Wordings with and without personal data."""
    found = _sections()
    return found[f"{part} personal"], found[f"{part} clean"]


@lru_cache(maxsize=1)
def _sections() -> dict[str, list[str]]:
    text = resources.files("pocketloop.data.demo").joinpath("templates/pii_heldout.txt").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    section = half = ""
    for line in text.splitlines():
        if line.startswith("== "):
            section = line.removeprefix("== ")
        elif line.startswith("-- "):
            half = line.removeprefix("-- ")
        elif line and not line.startswith("#"):
            found.setdefault(f"{section} {half}", []).append(line)
    return found


@lru_cache(maxsize=1)
def _plain_values() -> dict[str, list[str]]:
    """What fills the slots that are nobody's."""
    found = _sections()
    lines = (line.partition(": ") for line in found["third values"] + found["final values"])
    return {name: values.split("; ") for name, _, values in lines}


def _pieces(template: str, rng: Random, part: Part, locale: str) -> Iterator[Piece]:
    for piece in template.split("{"):
        kind, brace, rest = piece.partition("}")
        if not brace:
            yield piece, None
            continue
        plain = kind.islower()
        yield kind, Value(rng.choice(_plain_values()[kind])) if plain else _value(kind, rng, part, locale)
        if rest:
            yield rest, None


def _value(kind: str, rng: Random, part: Part, locale: str) -> Value:
    if kind == "PERSON":
        return _person(rng, part, locale)
    region = locale.split("_")[1]
    if kind == "PHONE_NUMBER":
        return marked(people.phone_number(rng, rng.choice([region, region, "US", "GB"]), "heldout"), kind)
    if kind == "EMAIL_ADDRESS":
        first, last = _names(part, locale)
        return marked(people.email_of(rng.choice(first), rng.choice(last), rng, "heldout"), kind)
    if kind == "ADDRESS":
        return marked(_address(rng, locale), kind)
    if kind == "USERNAME":
        return marked(_handle(rng), kind)
    owner = people.Person(rng.choice(_names(part, locale)[0]), "", locale, "", "", "")
    return marked(people.personal_value(kind, owner, rng, "heldout"), kind)


@lru_cache(maxsize=32)
def _names(part: Part, locale: str) -> tuple[list[str], list[str]]:
    """First names and surnames of which no word is used in training."""
    fresh = heldout_names(part)
    pools = []
    for pool in names_of(locale):
        pools.append([name for name in pool if words_of_name(name) <= fresh and len(name) > 2])
    if min(map(len, pools)) < 20:
        raise DataError(f"too few names of {locale} are unknown to the training")
    return pools[0], pools[1]


def _person(rng: Random, part: Part, locale: str) -> Value:
    firsts, lasts = _names(part, locale)
    first, last = rng.choice(firsts), rng.choice(lasts)
    form = rng.random()
    if form < 0.08:
        title = rng.choice(_TITLES)
        return Value(title + last, None, ((len(title), len(title) + len(last), "PERSON"),), True)
    middle = f" {rng.choice('ABCDEFGHJKLMNPRSTVW')}. " if form < 0.14 else " "
    return marked(first if form > 0.58 else f"{first}{middle}{last}", "PERSON")


def _address(rng: Random, locale: str) -> str:
    """A street with its number, in one case of three in the English way, often with its postal code and town."""
    english = rng.random() < 0.35
    country = rng.choice(_ENGLISH_STREETS) if english else _STREETS_OF.get(locale, locale)
    fake = _faker(country)
    fake.seed_instance(rng.getrandbits(40))
    street = ""
    while not any(char.isdigit() for char in street):
        street = " ".join(fake.street_address().split())
    if english or rng.random() < 0.6:
        return street
    return f"{street}, {fake.postcode()} {fake.city()}" if rng.random() < 0.7 else f"{street} {fake.postcode()}"


@lru_cache(maxsize=32)
def _faker(locale: str) -> Any:
    from faker import Faker

    return Faker(locale)


def _handle(rng: Random) -> str:
    head = "".join(rng.choice("bcdfglmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
    return f"@{head}{rng.choice(['', '_', '.'])}{rng.randint(1, 99)}"
