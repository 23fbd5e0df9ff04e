"""Numbers that identify people and things: made up, but valid as far as their check digits go."""

import hashlib
import string
from random import Random

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_IBAN_FORMS = {
    "GB": "AAAADDDDDDDDDDDDDD",
    "DE": "D" * 18,
    "FR": "D" * 23,
    "ES": "D" * 20,
    "PL": "D" * 24,
    "IT": "A" + "D" * 22,
    "TR": "D" * 22,
    "NL": "AAAA" + "D" * 10,
    "SE": "D" * 20,
    "CZ": "D" * 20,
    "BR": "D" * 23 + "AD",
}
"""Letters (A) and digits (D) after country and check digits, from the ISO 13616 registry."""

_PLATES = {
    "US": ("AAA-DDDD", "DAAADDD"),
    "GB": ("AADD AAA",),
    "DE": ("A-AA DDDD", "AA-A DDD"),
    "FR": ("AA-DDD-AA",),
    "ES": ("DDDD AAA",),
    "IT": ("AA DDDAA", "AADDDAA"),
    "PL": ("AA DDDDD",),
    "TR": ("DD AA DDD",),
    "IN": ("AA DD AA DDDD",),
    "BR": ("AAADADD", "AAA-DDDD"),
    "NL": ("DD-AAA-D", "A-DDD-AA"),
    "SE": ("AAA DDD",),
    "CZ": ("DAD DDDD",),
}


def _filled(form: str, rng: Random) -> str:
    letters = {"A": "ABCDEFGHJKLMNPRSTUVWXYZ", "D": string.digits}
    return "".join(rng.choice(letters[char]) if char in letters else char for char in form)


def luhn_digit(digits: str) -> str:
    """The check digit that completes `digits` (ISO/IEC 7812-1, Luhn)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def credit_card(rng: Random) -> str:
    """A Visa, Mastercard (old and 2-series) or American Express number, spaced, dashed or plain."""
    prefix, length = rng.choice([("4", 16), ("4", 16), ("5" + str(rng.randint(1, 5)), 16), ("2221", 16), ("37", 15)])
    digits = prefix + "".join(rng.choices(string.digits, k=length - 1 - len(prefix)))
    digits += luhn_digit(digits)
    cuts = (4, 8, 12, 16) if length == 16 else (4, 10, 15)
    groups = [digits[start:end] for start, end in zip((0, *cuts[:-1]), cuts, strict=True)]
    return rng.choice([" ", " ", "-", ""]).join(groups)


def iban(rng: Random, region: str) -> str:
    """An IBAN of `region` (GB where it has none) with its ISO 7064 mod 97-10 check digits, spaced or plain."""
    country = region if region in _IBAN_FORMS else "GB"
    account = _filled(_IBAN_FORMS[country], rng)
    number = "".join(str(int(char, 36)) for char in f"{account}{country}00")
    whole = f"{country}{98 - int(number) % 97:02d}{account}"
    if rng.random() < 0.6:
        return " ".join(whole[start : start + 4] for start in range(0, len(whole), 4))
    return whole


def us_ssn(rng: Random) -> str:
    """A social security number of a range that is issued, dashed or spaced."""
    area = rng.choice([rng.randint(1, 665), rng.randint(667, 899)])
    sign = rng.choice(["-", "-", " "])
    return f"{area:03d}{sign}{rng.randint(1, 99):02d}{sign}{rng.randint(1, 9999):04d}"


def bitcoin_address(rng: Random) -> str:
    """A P2PKH address: base58 of version 0, 20 bytes and four bytes of double SHA-256."""
    payload = b"\0" + rng.randbytes(20)
    payload += hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(payload, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = _BASE58[rest] + text
    zeros = len(payload) - len(payload.lstrip(b"\0"))
    return "1" * zeros + text


def ip_address(rng: Random) -> str:
    """A private or documentation IPv4 address, or an IPv6 one of 2001:db8::/32."""
    if rng.random() < 0.2:
        return "2001:db8:" + ":".join(f"{rng.randint(1, 0xFFFF):x}" for _ in range(6))
    head = rng.choice(
        [f"192.168.{rng.randint(0, 255)}", f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}", "203.0.113"]
    )
    return f"{head}.{rng.randint(1, 254)}"


def api_key(rng: Random) -> str:
    """A token in one of the forms that services hand out."""
    alphabet = string.ascii_letters + string.digits
    head, length = rng.choice([("sk_live_", 24), ("ghp_", 36), ("AKIA", 16), ("sk-proj-", 40), ("xoxb-", 30)])
    letters = string.ascii_uppercase + "234567" if head == "AKIA" else alphabet
    return head + "".join(rng.choices(letters, k=length))


def password(rng: Random) -> str:
    """A password as people make them: a word or two, digits, a sign."""
    words = "Tiger Sunny Maple Rocket Coffee Winter Dragon Purple Lemon Shadow River Monkey Falcon Pepper".split()
    first, second = rng.sample(words, 2)
    number = rng.randint(10, 9999)
    return rng.choice(
        [f"{first}{number}!", f"{first}-{second}-{number}", f"{first.lower()}_{number}$", f"{second}#{number}"]
    )


def license_plate(rng: Random, region: str) -> str:
    """A plate in a form of `region` (of the United States where none is known)."""
    return _filled(rng.choice(_PLATES.get(region, _PLATES["US"])), rng)
