"""The people of the fleet: names of many countries, and what belongs to a person, the same wherever they turn up."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from pocketloop.data.demo import identifiers
from pocketloop.data.demo._random import Split, part_of
from pocketloop.data.demo.grammar import kinds
from pocketloop.data.demo.times import MONTHS

SHARED_LOCALES = ("en_US", "en_GB", "de_DE", "es_ES", "fr_FR", "pl_PL", "tr_TR", "en_IN", "pt_BR", "it_IT")
"""Locales of both splits (the names themselves are divided)."""
HELDOUT_LOCALES = ("nl_NL", "sv_SE", "cs_CZ")
"""Locales that training never sees."""

_WEIGHTS = (30, 14, 7, 7, 7, 7, 7, 7, 7, 7)
_MAIL_HOSTS: dict[Split, tuple[str, ...]] = {
    "train": ("example.com", "example.org", "mail.example.com", "post.example.org"),
    "heldout": ("example.net", "inbox.example.net", "home.example.com"),
}
_POOL = 240
_AREAS = (
    "201 202 205 206 212 215 303 305 310 312 313 315 404 408 412 415 416 419 503 504 505 512 516 "
    "602 604 608 612 617 619 702 703 704 713 716 718 801 803 808 813 816 901 907 913 915 917 919"
).split()


@dataclass(frozen=True)
class Person:
    """Somebody with a number, an address and the rest."""

    first: str
    last: str
    locale: str
    phone: str
    email: str
    address: str

    @property
    def full(self) -> str:
        """First name and surname."""
        return f"{self.first} {self.last}"


def locales(split: Split) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Locales of a split with their weights."""
    if split == "train":
        return SHARED_LOCALES, _WEIGHTS
    return SHARED_LOCALES + HELDOUT_LOCALES, (*_WEIGHTS, 12, 12, 12)


@lru_cache(maxsize=32)
def _pool(locale: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """First names, surnames and street addresses of one locale (Faker is slow: asked once)."""
    from faker import Faker

    fake = Faker(locale)
    fake.seed_instance(7)
    draws = ([make() for _ in range(_POOL)] for make in (fake.first_name, fake.last_name, fake.street_address))
    firsts, lasts, addresses = (tuple(dict.fromkeys(" ".join(text.split()) for text in texts)) for texts in draws)
    plain = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)?")
    return (
        tuple(name for name in firsts if plain.fullmatch(name)),
        tuple(name for name in lasts if plain.fullmatch(name)),
        tuple(text for text in addresses if re.search(r"\d", text) and len(text) <= 40),
    )


@lru_cache(maxsize=1)
def _training_words() -> frozenset[str]:
    """Every name that training may use."""
    words = (word for locale in SHARED_LOCALES for part in _pool(locale)[:2] for word in part)
    return frozenset(word for word in words if part_of(word) == "train")


@lru_cache(maxsize=64)
def names(locale: str, split: Split) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """First names, surnames and street addresses of one locale on one side of the split."""

    def keep(text: str) -> bool:
        if locale in HELDOUT_LOCALES:
            return split == "heldout" and text not in _training_words()
        return part_of(text) == split

    firsts, lasts, addresses = (tuple(text for text in part if keep(text)) for part in _pool(locale))
    return firsts, lasts, addresses


def region_of(locale: str) -> str:
    """The ISO 3166 country of a locale."""
    return locale.split("_")[1]


def phone_number(rng: Random, region: str, split: Split) -> str:
    """A number that is valid in `region`, written as people write it there or internationally."""
    import phonenumbers

    if region == "US":
        return _american_number(rng, split)
    example = _example_number(region)
    number = phonenumbers.PhoneNumber(country_code=example.country_code, national_number=example.national_number)
    while True:
        digits = str(example.national_number)
        number.national_number = int(digits[:-5] + f"{rng.randrange(100_000):05d}")
        if phonenumbers.is_valid_number(number) and part_of(str(number.national_number)) == split:
            break
    forms = phonenumbers.PhoneNumberFormat
    form = rng.choice([forms.INTERNATIONAL, forms.INTERNATIONAL, forms.NATIONAL, forms.E164])
    return str(phonenumbers.format_number(number, form))


def _american_number(rng: Random, split: Split) -> str:
    """A number of the range 555-0100 to 555-0199, which is kept free for fiction."""
    while True:
        area, tail = rng.choice(_AREAS), rng.randint(100, 199)
        if part_of(f"{area}{tail}") == split:
            break
    forms = ["{}-555-{:04d}", "({}) 555-{:04d}", "{}.555.{:04d}", "+1 {} 555 {:04d}", "{}555{:04d}"]
    return rng.choice(forms).format(area, tail)


@lru_cache(maxsize=32)
def _example_number(region: str) -> Any:
    import phonenumbers

    return phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)


def email_of(first: str, last: str, rng: Random, split: Split) -> str:
    """An address at a host that is reserved for examples, made of the name's plain letters."""
    plain = [_ascii(part) for part in (first, last)]
    local = rng.choice(["{0}.{1}", "{0}{1}", "{0}_{1}", "{0}.{1}{2}", "{0}{2}"]).format(*plain, rng.randint(1, 99))
    return f"{local}@{rng.choice(_MAIL_HOSTS[split])}"


def _ascii(text: str) -> str:
    text = text.lower().translate(str.maketrans("łıø", "lio")).replace("ß", "ss")
    return re.sub(r"[^a-z]", "", unicodedata.normalize("NFKD", text)) or "user"


def address(rng: Random, locale: str, split: Split) -> str:
    """A street address with its number."""
    if locale.startswith("en_") and rng.random() < 0.7:
        entries = kinds()
        street = rng.choice(entries["street_name"].entries[split])[0]
        return f"{rng.randint(1, 999)} {street} {rng.choice(entries['street_type'].entries[split])[0]}"
    return rng.choice(names(locale, split)[2])


def stranger(rng: Random, split: Split, locale: str | None = None) -> Person:
    """A new person of `locale`, or of any."""
    if locale is None:
        choices, weights = locales(split)
        locale = rng.choices(choices, weights)[0]
    firsts, lasts, _ = names(locale, split)
    first, last = rng.choice(firsts), rng.choice(lasts)
    phone = phone_number(rng, region_of(locale), split)
    return Person(first, last, locale, phone, email_of(first, last, rng, split), address(rng, locale, split))


def date_of_birth(rng: Random, split: Split) -> str:
    """A date between 1940 and 2012, in one of the forms of the split."""
    year, month, day = rng.randint(1940, 2012), rng.randint(1, 12), rng.randint(1, 28)
    name = MONTHS[month - 1]
    forms = [
        f"{day} {name} {year}",
        f"{name} {day}, {year}",
        f"{day:02d}/{month:02d}/{year}",
        f"{year}-{month:02d}-{day:02d}",
    ]
    extra = [f"{day}.{month}.{year}", f"{name[:3]} {day} {year}"]
    return rng.choice(forms if split == "train" else forms + extra)


def personal_value(kind: str, owner: Person, rng: Random, split: Split) -> str:
    """A new value of a type of personal data that fits `owner`'s country, on one side of the split."""
    while part_of(value := _new_value(kind, owner, rng, split)) != split:
        continue
    return value


def _new_value(kind: str, owner: Person, rng: Random, split: Split) -> str:
    region = region_of(owner.locale)
    word = rng.choice(kinds()["user_word"].entries[split])[0]
    handle = _ascii(owner.first) + str(rng.randint(1, 99))
    makers = {
        "CREDIT_CARD": lambda: identifiers.credit_card(rng),
        "IBAN": lambda: identifiers.iban(rng, region),
        "US_SSN": lambda: identifiers.us_ssn(rng),
        "CRYPTO": lambda: identifiers.bitcoin_address(rng),
        "IP_ADDRESS": lambda: identifiers.ip_address(rng),
        "API_KEY": lambda: identifiers.api_key(rng),
        "PASSWORD": lambda: identifiers.password(rng),
        "LICENSE_PLATE": lambda: identifiers.license_plate(rng, region),
        "DATE_OF_BIRTH": lambda: date_of_birth(rng, split),
        "URL": lambda: rng.choice(
            [
                f"https://www.example.com/{handle}/{word}",
                f"https://{handle}.example.org/{word}",
                f"http://example.net/u/{handle}",
            ]
        ),
    }
    return makers[kind]()


@dataclass
class Persona:
    """Who holds a device: themselves, the people they know, and the numbers that are theirs."""

    me: Person
    contacts: list[Person]
    values: dict[str, str]


PERSONAL_KINDS = (
    "CREDIT_CARD",
    "IBAN",
    "US_SSN",
    "CRYPTO",
    "IP_ADDRESS",
    "API_KEY",
    "PASSWORD",
    "LICENSE_PLATE",
    "DATE_OF_BIRTH",
    "URL",
)
"""Types whose values a persona keeps; names, numbers, mail and street addresses belong to each `Person`."""


def make_persona(rng: Random, split: Split) -> Persona:
    """Invent somebody with six to ten contacts, most of them of the same country."""
    me = stranger(rng, split)
    contacts = [stranger(rng, split, me.locale if rng.random() < 0.75 else None) for _ in range(rng.randint(6, 10))]
    values = {kind: personal_value(kind, me, rng, split) for kind in PERSONAL_KINDS}
    return Persona(me, contacts, values)
