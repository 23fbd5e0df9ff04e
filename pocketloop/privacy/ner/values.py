"""Made-up addresses, dates, passwords, plates and numbers for the training sentences."""

import string
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from random import Random
from typing import Any

_STREETS = (
    "en_US en_US en_GB en_GB en_AU en_CA en_IN de_DE de_DE de_AT de_CH es_ES es_MX es_AR es_CO fr_FR fr_FR fr_CA it_IT "
    "it_IT pt_BR pt_PT pl_PL pl_PL tr_TR da_DK no_NO sk_SK hr_HR sl_SI ru_RU uk_UA bg_BG el_GR"
).split()
"""Countries with streets of their own in Faker, none of them held out."""
_MONTHS = "January February March April May June July August September October November December".split()
_WORDS = (
    "turtle cedar cloudy pickle autumn wizard yellow mango castle ocean kitten eagle ginger violet comet planet "
    "correct horse banana hidden spring daisy teddy lucky sweet thunder pirate golden captain howdy welcome burger blue"
).split()


@lru_cache(maxsize=64)
def _faker(locale: str) -> Any:
    from faker import Faker

    return Faker(locale)


def address(rng: Random, _locale: str) -> str:
    """A street and its number in one country's way, often with a flat, a postal code or a town."""
    locale = rng.choice(_STREETS)
    fake = _faker(locale if locale not in ("tr_TR", "bg_BG") else "en_GB")
    fake.seed_instance(rng.getrandbits(40))
    street = " ".join(fake.street_address().split())
    if not any(char.isdigit() for char in street):
        number = rng.randint(1, 250)
        street = f"{number} {street}" if locale.startswith(("en", "fr")) else f"{street} {number}"
    form = rng.random()
    if form < 0.6:
        return street
    town = fake.city()
    if form < 0.72:
        return f"{street}, {town}"
    code = fake.postcode()
    if locale.startswith("en"):
        return f"{street}, {town} {code}" if form < 0.9 else f"{street} {code}"
    return f"{street}, {code} {town}" if form < 0.92 else f"{street} {code} {town}"


def country(rng: Random) -> str:
    """The English name of a country."""
    fake = _faker("en_US")
    fake.seed_instance(rng.getrandbits(40))
    return str(fake.country())


_TOWNS = {
    "cities": "da_DK de_AT de_CH de_DE en_BD en_IN hr_HR it_IT pl_PL pt_PT sk_SK sl_SI fr_DZ".split(),
    "municipalities": ["es_CO"],
}
"""Lists of towns in Faker's countries that are not held out."""


@lru_cache(maxsize=1)
def _towns() -> tuple[tuple[str, ...], ...]:
    found = []
    for attribute, locales in _TOWNS.items():
        for locale in locales:
            provider = import_module(f"faker.providers.address.{locale}").Provider
            entries = (entry if isinstance(entry, str) else entry[1] for entry in getattr(provider, attribute))
            found.append(tuple(sorted(set(entries))))
    return tuple(found)


def town(rng: Random) -> str:
    """A real town of some country."""
    return rng.choice(rng.choice(_towns()))


def birth_date(rng: Random, _locale: str) -> str:
    """A date between 1930 and 2022 in one of many forms."""
    year, month, day = rng.randint(1930, 2022), rng.randint(1, 12), rng.randint(1, 28)
    name = _MONTHS[month - 1]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day not in (11, 12, 13) else 0, "th")
    return rng.choice(
        [
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{name} {day}{ending} {year}",
            f"the {day}{ending} of {name} {year}",
            f"{day:02d}/{month:02d}/{year}",
            f"{month}/{day}/{year % 100:02d}",
            f"{year}-{month:02d}-{day:02d}",
            f"{day}.{month}.{year}",
            f"{name[:3]} {day} {year}",
            f"{day}-{name[:3]}-{year}",
            f"{day} {name[:3]} {year}",
        ]
    )


def password(rng: Random, _locale: str) -> str:
    """A password as people make them, or a random one."""
    first, second = rng.sample(_WORDS, 2)
    number = rng.randint(1, 9999)
    random_one = "".join(rng.choices(string.ascii_letters + string.digits + "!#$%*+-_?", k=rng.randint(8, 14)))
    return rng.choice(
        [
            f"{first.title()}{number}!",
            f"{first}{number}",
            f"{first.title()}-{second.title()}-{number}",
            f"{first}_{second}{rng.choice('!$#*?')}",
            f"{number}{second}{rng.choice('!$#@')}",
            f"{first}{second}",
            f"{first.title()}{rng.choice('#@-.')}{number}",
            f"{first}_{number}{rng.choice('$!?')}",
            first.upper() + str(number),
            f"{first[0]}0{first[1:]}{rng.choice('!?.')}{number}",
            random_one,
            random_one,
        ]
    )


def pin(rng: Random, _locale: str) -> str:
    """Three to eight digits."""
    return "".join(rng.choices(string.digits, k=rng.choice([3, 4, 4, 4, 4, 5, 6, 6, 8])))


_PLATES = (
    "AADD AAA|AAA-DDDD|DAAADDD|A-AA DDDD|AA-A DDD|AA-DDD-AA|DDDD AAA|AA DDDAA|AADDDAA|AA DDDDD|DD AA DDD|AA DD AA DDDD|"
    "AAADADD|AAA DDDD|AADDDD|A DDD AA|DDD AAA|AA-DDDDD|DDD-AA-DDD|AAADDD|A DDDD AA"
).split("|")


def plate(rng: Random, _locale: str) -> str:
    """A number plate in the form of some country."""
    form = rng.choice(_PLATES)
    return _filled(form.replace("D", "d"), rng)


def _phone(rng: Random) -> str:
    forms = [
        "ddd-555-dddd",
        "(ddd) 555-dddd",
        "+44 7700 dddddd",
        "0ddd ddddddd",
        "+49 ddd ddddddd",
        "dddddddddd",
        "+d ddd ddd dddd",
    ]
    return _filled(rng.choice(forms), rng)


def _code(rng: Random) -> str:
    forms = (
        "AAdddd AAddd Add ddd d dd dddddd AAAdddddd dddd-dddd AdAdAd #dddd ddA AAddddddddddddd dddd-ddddd AxAxAx d/d"
    )
    return _filled(rng.choice(forms.split()), rng)


def _date(rng: Random) -> str:
    day, month = rng.randint(1, 28), rng.choice(_MONTHS)
    year = rng.choice(["", "", f" {rng.randint(2018, 2028)}", f", {rng.randint(2018, 2028)}"])
    ending = rng.choice(["", "th", "st", "nd", "rd"])
    return rng.choice(
        [
            f"{month} {day}{ending}{year}",
            f"{day}{ending} {month}{year}",
            f"the {day}{ending} of {month}{year}",
            f"{month[:3]} {day}{year}",
            f"{rng.randint(1, 12)}/{day}",
            f"{day:02d}/{rng.randint(1, 12):02d}/{rng.randint(2018, 2028)}",
            f"{rng.randint(2018, 2028)}-{rng.randint(1, 12):02d}-{day:02d}",
            f"{month}{year}",
        ]
    )


def _filled(form: str, rng: Random) -> str:
    """A form with A, a, d and x replaced by a capital, a small letter, a digit and any of these."""
    alphabets = {
        "A": string.ascii_uppercase,
        "a": string.ascii_lowercase,
        "d": string.digits,
        "x": string.ascii_letters + string.digits,
        "h": "0123456789abcdef",
    }
    return "".join(rng.choice(alphabets[char]) if char in alphabets else char for char in form)


def _email(rng: Random) -> str:
    local = rng.choice(["aaaa.aaaaaa", "aaaaaadd", "a.aaaaaaa", "aaaaa_aaaa", "aaaaaaadd"])
    return _filled(local, rng) + rng.choice(["@example.com", "@mail.example.org", "@post.example.net"])


NUMBERS: dict[str, Callable[[Random], str]] = {
    "n": lambda rng: str(rng.choice([rng.randint(1, 12), rng.randint(2, 60), rng.randint(1, 500), 100, 1000, 2400])),
    "phone": _phone,
    "code": _code,
    "date": _date,
    "long": lambda rng: _filled(rng.choice(["ddddd", "dddddd", "dddd", "ddddd-dd", "ddd-dddd", "dddddddddd"]), rng),
    "version": lambda rng: ".".join(str(rng.randint(0, 20)) for _ in range(rng.choice([2, 3]))),
    "email": _email,
    "url": lambda rng: (
        _filled("https://", rng) + rng.choice(["www.", "", "my."]) + "example.com/" + _filled("aaaadd", rng)
    ),
    "card": lambda rng: _filled(
        rng.choice(["dddd dddd dddd dddd", "dddddddddddddddd", "dddd-dddd-dddd-dddd", "dddd"]), rng
    ),
    "iban": lambda rng: _filled(
        rng.choice(["AAdd dddd dddd dddd dddd dd", "AAdddddddddddddddddd", "AAdd AAAA dddd dddd dd"]), rng
    ),
    "ssn": lambda rng: _filled(rng.choice(["ddd-dd-dddd", "ddd dd dddd"]), rng),
    "key": lambda rng: _filled(
        rng.choice(["sk_xxxxxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "hhhhhhhhhhhhhhhhhhhh"]), rng
    ),
    "ip": lambda rng: ".".join(str(rng.randint(1, 254)) for _ in range(4)),
}
"""Numbers and codes that patterns look after, or that are nobody's."""
