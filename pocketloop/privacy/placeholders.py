"""Placeholders in scrubbed conversations, and made-up values to stand in for them while a model is trained.

Phones run an adapter on raw text. A model that has only ever seen `<PERSON_3fa2b1>` would not learn to copy "Xochitl"
into a call. The release keeps placeholders; training fills them with values that belong to nobody.
"""

import random
import re
import string
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.privacy.names import names_of

PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]*[A-Z])_([0-9a-f]{6})>")

_NAME_LOCALES = (
    "en_US en_GB en_IE en_IN en_KE en_NZ de_DE fr_FR es_ES es_MX it_IT nl_NL pl_PL pt_BR sv_SE fi_FI tr_TR cs_CZ hu_HU "
    "ro_RO hr_HR id_ID en_PK zu_ZA ga_IE"
).split()
_ADDRESS_LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pt_BR")
_ADDRESSES_PER_LOCALE = 250
_MONTHS = "January February March April May June July August September October November December".split()
_SYLLABLES = "bra cor dal fen gri hol jun kas lor mel nov pra quin ros sol tav ul ven wil yor zan ber den fal".split()


def fill(messages: list[Message], seed: int | str) -> list[Message]:
    """Replace every placeholder by a made-up value of its type.

    Within the conversation one placeholder always gets one value and two placeholders get two; the same seed gives
    the same values. Text without placeholders, and placeholders of types unknown here, stay as they are.
    """
    rng = random.Random(f"surrogates {seed}")
    values: dict[str, str] = {}

    def value_of(match: re.Match[str]) -> str:
        token, kind = match.group(), match.group(1)
        if token not in values:
            values[token] = _fresh(kind, rng, set(values.values())) or token
        return values[token]

    def filled(text: str) -> str:
        return PLACEHOLDER.sub(value_of, text) if "<" in text else text

    return [
        Message(
            role=message.role,
            content=filled(message.content),
            tool_calls=[ToolCall(name=c.name, arguments=_mapped(c.arguments, filled)) for c in message.tool_calls],
        )
        for message in messages
    ]


def made_up(kind: str, rng: random.Random) -> str | None:
    """One made-up value of a type of personal data, `None` for a type that is not known."""
    maker = _MAKERS.get(kind)
    return maker(rng) if maker else None


def _fresh(kind: str, rng: random.Random, taken: set[str]) -> str | None:
    """A value that the conversation does not use yet."""
    for _ in range(20):
        value = made_up(kind, rng)
        if value not in taken:
            return value
    return value


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(part, change) for key, part in value.items()}
    return [_mapped(part, change) for part in value] if isinstance(value, list) else value


@lru_cache(maxsize=1)
def _names() -> list[tuple[list[str], list[str]]]:
    """First names and surnames by locale, those written in Latin letters and in one or two words."""
    pools = []
    for locale in _NAME_LOCALES:
        first, last = names_of(locale)
        pools.append(([n for n in first if _is_latin_name(n)], [n for n in last if _is_latin_name(n)]))
    return [pool for pool in pools if pool[0] and pool[1]]


def _is_latin_name(name: str) -> bool:
    return (
        2 <= len(name) <= 18 and name[0].isupper() and all((c.isalpha() and c < "\u0250") or c in " '-" for c in name)
    )


def _person(rng: random.Random) -> str:
    first, last = rng.choice(_names())
    return rng.choice(first) if rng.random() < 0.55 else f"{rng.choice(first)} {rng.choice(last)}"


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(string.digits) for _ in range(count))


def _phone(rng: random.Random) -> str:
    """Numbers from ranges that are kept free for fiction (NANP 555-01xx, Ofcom, ACMA, Arcep) or are not assigned."""
    area, line = rng.choice("23456789") + _digits(rng, 2), "01" + _digits(rng, 2)
    forms = [
        f"{area}-555-{line}",
        f"({area}) 555-{line}",
        f"{area} 555 {line}",
        f"+1 {area} 555 {line}",
        f"{area}555{line}",
        f"07700 900{_digits(rng, 3)}",
        f"+44 7700 900{_digits(rng, 3)}",
        f"020 7946 0{_digits(rng, 3)}",
        f"0491 570 {_digits(rng, 3)}",
        f"06 39 98 {_digits(rng, 2)} {_digits(rng, 2)}",
        f"+49 30 23125 {_digits(rng, 3)}",
        f"0171 39200{_digits(rng, 2)}",
    ]
    return rng.choice(forms)


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 3)))


def _plain(name: str) -> str:
    kept = "".join(c for c in name.lower() if c.isascii() and c.isalpha())
    return kept or "me"


def _email(rng: random.Random) -> str:
    first, last = rng.choice(_names())
    a, b = _plain(rng.choice(first)), _plain(rng.choice(last))
    local = rng.choice([f"{a}.{b}", f"{a}{b}", f"{a[0]}{b}", f"{a}_{b}", f"{a}{_digits(rng, 2)}", f"{b}.{a}"])
    ending = rng.choice(
        ["example", "test", "example.com", "example.org", "com", "net", "org", "de", "co.uk", "fr", "io"]
    )
    return f"{local}@{_word(rng)}.{ending}"


def _url(rng: random.Random) -> str:
    site = f"{_word(rng)}.{rng.choice(['example', 'com', 'org', 'net'])}"
    return rng.choice(
        [f"https://{site}/{_word(rng)}", f"www.{site}", f"https://www.{site}/{_word(rng)}?id={_digits(rng, 4)}"]
    )


@lru_cache(maxsize=1)
def _addresses() -> list[str]:
    from faker import Faker

    pool = []
    for locale in _ADDRESS_LOCALES:
        faker = Faker(locale)
        faker.seed_instance(locale)
        pool += [" ".join(faker.street_address().split()) for _ in range(_ADDRESSES_PER_LOCALE)]
    return pool


def _birth_date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1935, 2012)
    name = _MONTHS[month - 1]
    forms = [
        f"{day} {name} {year}",
        f"{name} {day}, {year}",
        f"{month:02}/{day:02}/{year}",
        f"{year}-{month:02}-{day:02}",
    ]
    return rng.choice([*forms, f"{day:02}.{month:02}.{year}"])


def _luhn_digit(body: str) -> str:
    total = 0
    for place, char in enumerate(reversed(body)):
        value = int(char) * (1 if place % 2 else 2)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def _card(rng: random.Random) -> str:
    body = rng.choice(["4", "51", "2221", "5500", "4000"])
    body += _digits(rng, 15 - len(body))
    number = body + _luhn_digit(body)
    return rng.choice([number, " ".join(number[i : i + 4] for i in range(0, 16, 4))])


def _iban(rng: random.Random) -> str:
    country, length = rng.choice([("DE", 18), ("ES", 20), ("AT", 16), ("PT", 21), ("DK", 14), ("BE", 12)])
    body = _digits(rng, length)
    check = 98 - int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
    whole = f"{country}{check:02}{body}"
    return rng.choice([whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))])


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(count))


def _plate(rng: random.Random) -> str:
    forms = [
        f"{_letters(rng, 3)} {_digits(rng, 4)}",
        f"{_digits(rng, 1)}{_letters(rng, 3)}{_digits(rng, 3)}",
        f"{_letters(rng, 2)}{_digits(rng, 2)} {_letters(rng, 3)}",
        f"{_letters(rng, 2)}-{_letters(rng, 2)} {_digits(rng, 3)}",
        f"{_letters(rng, 2)}-{_digits(rng, 3)}-{_letters(rng, 2)}",
    ]
    return rng.choice(forms)


def _run(rng: random.Random, count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


def _password(rng: random.Random) -> str:
    word = _word(rng)
    return rng.choice([f"{word}{_digits(rng, 2)}", f"{word.title()}{_digits(rng, 3)}!", _run(rng, 10), _digits(rng, 4)])


def _wallet(rng: random.Random) -> str:
    base58 = (
        string.digits[1:]
        + string.ascii_uppercase.replace("I", "").replace("O", "")
        + string.ascii_lowercase.replace("l", "")
    )
    return rng.choice(["0x" + _run(rng, 40, "0123456789abcdef"), "1" + _run(rng, 33, base58)])


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "PERSON": _person,
    "PHONE_NUMBER": _phone,
    "EMAIL_ADDRESS": _email,
    "ADDRESS": lambda rng: rng.choice(_addresses()),
    "DATE_OF_BIRTH": _birth_date,
    "CREDIT_CARD": _card,
    "IBAN": _iban,
    "US_SSN": lambda rng: f"9{_digits(rng, 2)}-{rng.randint(10, 49)}-{rng.randint(1000, 9999)}",
    "LICENSE_PLATE": _plate,
    "PASSWORD": _password,
    "API_KEY": lambda rng: rng.choice(["sk-", "key_", "tok-"]) + _run(rng, 24),
    "CRYPTO": _wallet,
    "IP_ADDRESS": lambda rng: f"{rng.choice(['192.0.2', '198.51.100', '203.0.113'])}.{rng.randint(1, 254)}",
    "URL": _url,
    "USERNAME": lambda rng: "@" + _plain(_person(rng))[:14] + rng.choice(["", "_", _digits(rng, 2)]),
}
