"""Patterns for personal data that has a shape of its own: numbers, addresses on networks, keys and passwords.

Each finder takes a text and the region of its speaker (ISO 3166, for phone numbers) and yields spans. A finder first
asks a cheap question (is there a digit, an at sign?), because most messages hold nothing.
"""

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

from pocketloop.privacy.spans import Span

_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "BR", "MX", "IN", "AU")
"""Where a number without a country code may be dialled, after the speaker's own region."""

_PHONE = re.compile(
    r"(?<!\w)(?<!\d[.,:/-])(?<![#$€£])(?:\+|00)?\(?\d[\d\s().\-/]{5,22}\d(?![\w%]|[.,:]\d|-\d)"
    r"(?:\s*(?:ext|x)\.?\s*\d{1,5})?",
    re.I,
)
_PHONE_CONTEXT = re.compile(
    r"\b(?:(?:phone|mobile|cell|telephone|fax|number|call|text|ring|hotline|contact|extension|digit)(?:s|ed|ing)?"
    r"|tel|sms|dial(?:led|ling|ed|ing|s)?|rang|rung|reach(?:es|ed|ing)?|whatsapp|callback|landline|voicemail"
    r"|(?:get|catch|try)\s+(?:me|him|her|us|them)\s+(?:on|at)|pick(?:s|ed|ing)?\s+up|answers?)\b",
    re.I,
)
_OTHER_NUMBER = re.compile(
    r"\b(?:order|invoice|ticket|tracking|booking|reference|confirmation|case|parcel|account|serial|model|flight|room)"
    r"\s+(?:number|no\.?|id|code)\b",
    re.I,
)
_OTHER_NUMBER_BEFORE = re.compile(
    r"\b(?:order|invoice|ticket|tracking|booking|reference|confirmation|case|parcel|serial|model|flight|room|form)"
    r"(?:\s+(?:number|no\.?|id|code|is))*\s*[:#]?\s*$",
    re.I,
)
_LOCAL_PHONE = re.compile(r"(?<!\w)(?<!\d[.,:/-])(?<![#$€£])\d{3}[-. ]\d{4}(?![\w%]|[.,:-]\d)")
_DATE_LIKE = re.compile(
    r"(?:19|20)\d\d[-/. ](?:0?[1-9]|1[0-2])[-/. ](?:0?[1-9]|[12]\d|3[01])(?:\s+\d{1,2}(?:[.]\d\d)?)?"
    r"|(?:0?[1-9]|[12]\d|3[01])[-/. ](?:0?[1-9]|[12]\d|3[01])[-/. ](?:19|20)\d\d(?:\s+\d{1,2}(?:[.]\d\d)?)?"
    r"|(?:19|20)\d\d\s*[-/]\s*(?:19|20)\d\d"
    r"|[0-2]?\d[.][0-5]\d\s*-\s*[0-2]?\d[.][0-5]\d"
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{4}|\d{6})?"
)
_ROUND = re.compile(r"\d{1,3}0{6,}|\d{1,3}(?:[ .]\d{3})*[ .]000|\d+[.]\d+")

_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,6}[^\W\d_]{2,24}(?![\w-])")
_SPOKEN_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]+(?: dot [\w-]+)*\s*(?:\bat\b|\(at\)|\[at\]|@)"
    r"\s*[\w-]+(?:\s*(?:\bdot\b|\(dot\)|\[dot\])\s*[\w-]+)+",
    re.I,
)
_URL = re.compile(r"(?<![@\w])(?:(?:https?|ftp)://|www\.)[^\s<>\"'“”]+", re.I)
_TLDS = (
    "com org net edu gov info biz io dev app co ai tv fm uk de fr es nl eu ch pl se dk fi cz pt br mx ca au nz jp cn "
    "kr ru tr ie example test"
).replace(" ", "|")
_DOMAIN = re.compile(rf"(?<![@\w.-])(?:[a-z0-9-]{{2,63}}\.){{1,4}}(?:{_TLDS})(?:/[^\s<>\"']*)?(?![\w@-]|\.\w)")

_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){11,18}(?![\w-])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}(?!\w)", re.I)
_IBAN_LENGTHS = {
    pair[:2]: int(pair[2:])
    for pair in """AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 CH21 CY28 CZ24 DE22 DK18 EE20 EG29 ES24 FI18 FR27
    GB22 GE22 GR27 HR21 HU28 IE22 IL23 IS26 IT27 JO30 KW30 KZ20 LB28 LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MT31 MU30
    NL18 NO15 PK24 PL28 PT25 QA29 RO24 RS22 SA24 SE24 SI19 SK24 SM27 TN24 TR26 UA29 XK20""".split()
}
_SSN = re.compile(r"(?<![\w-])(?!000|666)\d{3}([- ])\d{2}\1(?!0000)\d{4}(?![\w-])")
_SSN_PLAIN = re.compile(r"\b(?:ssn|social security(?: number)?)\b\W{0,3}(?:is|=)?\W{0,3}(\d{9})(?!\d)", re.I)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])", re.I)
_MAC = re.compile(r"(?<![\w:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![\w:-])", re.I)

_MONTH = (
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?)"
)
_BIRTH_DATE = (
    rf"(?:\d{{1,2}}(?:st|nd|rd|th)?(?:\s+of)?\s+{_MONTH}\.?,?(?:\s+(?:19|20)\d\d)?"
    rf"|{_MONTH}\.?\s+(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+(?:19|20)\d\d)?"
    r"|\d{1,2}[/.-]\d{1,2}[/.-](?:\d{4}|\d{2})|(?:19|20)\d\d[/.-]\d{1,2}[/.-]\d{1,2})(?!\d)"
)
_BORN = re.compile(
    r"\b(?:born|d\.?o\.?b\.?|date of birth|birth\s?date)\b(?:\s+(?:for|on|in)\s+(?:the|my|our|his|her)\s+\w+)?"
    r"\W{0,3}(?:(?:is|was|on|in|of|as|to|the|=)\W{1,3}){0,3}"
    rf"({_BIRTH_DATE})",
    re.I,
)
_BIRTHDAY = re.compile(rf"\bbirthday\b\W{{0,3}}(?:(?:is|was|on|the|=)\W{{1,3}}){{0,3}}({_BIRTH_DATE})", re.I)
_AS_BIRTHDAY = re.compile(
    rf"({_BIRTH_DATE})\W{{1,3}}(?:as|is|was)\s+(?:[^\W\d_]+['’]s\s+|my\s+|his\s+|her\s+|their\s+|the\s+)?"
    r"(?:birthday|date of birth|birth\s?date|dob)\b",
    re.I,
)
_YEAR = re.compile(r"(?:19|20)\d\d")


def has_digit(text: str) -> bool:
    """Whether there is any digit: without one, a number cannot be there."""
    return _DIGIT.search(text) is not None


_DIGIT = re.compile(r"\d")


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


@lru_cache(maxsize=4096)
def phone_score(candidate: str, region: str) -> float:
    """0.9 for a valid number in the speaker's region or with a country code, 0.7 elsewhere, 0.5 when only possible."""
    import phonenumbers

    best = 0.0
    international = candidate.lstrip().startswith(("+", "00"))
    plus = "+" + candidate.lstrip()[2:] if candidate.lstrip().startswith("00") else candidate
    for place in (region, *(r for r in _REGIONS if r != region)):
        try:
            number = phonenumbers.parse(plus, place)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return 0.9 if international or place == region else 0.7
        if phonenumbers.is_possible_number(number):
            best = max(best, 0.5 if international or place == region else 0.3)
        if international:
            break
    return best


def phone_numbers(text: str, region: str) -> Iterator[Span]:
    """Phone numbers: candidates by shape, judged by libphonenumber; a merely possible one needs a word that says so."""
    context: bool | None = None
    for match in _PHONE.finditer(text):
        candidate = match.group().strip()
        digits = _digits(candidate)
        if not 7 <= len(digits) <= 17 or _DATE_LIKE.fullmatch(candidate) or _ROUND.fullmatch(candidate):
            continue
        start = match.start()
        if candidate[0] not in "+(" and _OTHER_NUMBER_BEFORE.search(text, max(0, start - 40), start):
            continue
        score = phone_score(candidate, region)
        if context is None:
            context = _PHONE_CONTEXT.search(_OTHER_NUMBER.sub("", text)) is not None
        grouped = candidate[0] in "+(" or len(re.split(r"[\s.\-/()]+", candidate)) >= 3
        if candidate.isdigit() and not context and score < 0.9:
            continue
        if len(digits) < 9 and not context and candidate[0] != "+" and (candidate.isdigit() or score < 0.9):
            continue
        if score or (context and grouped) or (candidate[0] == "+" and len(digits) >= 8):
            yield Span(start, start + len(candidate), "PHONE_NUMBER", max(score, 0.5 if context or grouped else score))
    for match in _LOCAL_PHONE.finditer(text):
        if match.group()[3] == "-" or _PHONE_CONTEXT.search(text):
            yield Span(match.start(), match.end(), "PHONE_NUMBER", 0.5)


def emails(text: str, _region: str) -> Iterator[Span]:
    """E-mail addresses, written or spelled out ("anna at example dot com"). No list of domains is asked."""
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield Span(match.start(), match.end(), "EMAIL_ADDRESS", 1.0)
    if "dot" in text.lower():
        for match in _SPOKEN_EMAIL.finditer(text):
            yield Span(match.start(), match.end(), "EMAIL_ADDRESS", 0.8)


def urls(text: str, _region: str) -> Iterator[Span]:
    """Web addresses with a scheme or `www.`, and bare domains of common endings; never an e-mail address's tail."""
    if "." not in text and "://" not in text:
        return
    for match in _URL.finditer(text):
        end = match.start() + len(match.group().rstrip(".,;:!?)]}"))
        if end - match.start() > 7:
            yield Span(match.start(), end, "URL", 0.9)
    for match in _DOMAIN.finditer(text):
        end = match.start() + len(match.group().rstrip(".,;:!?)]}"))
        yield Span(match.start(), end, "URL", 0.6)


def luhn(digits: str) -> bool:
    """The checksum of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def credit_cards(text: str, _region: str) -> Iterator[Span]:
    """12 to 19 digits that start like a card and pass the checksum; four groups of four even with a wrong digit."""
    if not has_digit(text):
        return
    for match in _CARD.finditer(text):
        digits = _digits(match.group())
        if digits[0] in "23456" and luhn(digits) and len(set(digits)) > 1:
            yield Span(match.start(), match.end(), "CREDIT_CARD", 1.0)
        elif re.fullmatch(r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}", match.group()):
            yield Span(match.start(), match.end(), "CREDIT_CARD", 0.5)


def iban_valid(value: str) -> bool:
    """ISO 13616: the country's length, groups of at most four; rotated by four, letters as 10–35, modulo 97 is 1."""
    groups = re.split(r"[ -]", value.upper())
    raw = "".join(groups)
    length = _IBAN_LENGTHS.get(raw[:2])
    if not 15 <= len(raw) <= 34 or length not in (None, len(raw)) or not raw.isascii():
        return False
    if len(groups) > 1 and max(map(len, groups)) > 4:
        return False
    return int("".join(str(int(char, 36)) for char in raw[4:] + raw[:4])) % 97 == 1


def ibans(text: str, _region: str) -> Iterator[Span]:
    """Bank account numbers whose checksum holds; words that follow without a sign between are shed one by one."""
    at = 0
    while has_digit(text) and (match := _IBAN.search(text, at)):
        value = match.group()
        while len(value) >= 15 and not iban_valid(value):
            cut = max(value.rfind(" "), value.rfind("-"))
            value = value[:cut] if cut > 0 else ""
        valid = iban_valid(value)
        if valid:
            yield Span(match.start(), match.start() + len(value), "IBAN", 1.0)
        at = match.start() + (len(value) if valid else 1)


def ip_addresses(text: str, _region: str) -> Iterator[Span]:
    """IPv4 and IPv6 addresses, and the hardware addresses of network cards."""
    if "." not in text and text.count(":") < 2 and text.count("-") < 5:
        return
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            try:
                ipaddress.ip_address(match.group())
            except ValueError:
                continue
            if len(match.group()) >= 4:
                yield Span(match.start(), match.end(), "IP_ADDRESS", 0.9)
    for match in _MAC.finditer(text):
        yield Span(match.start(), match.end(), "IP_ADDRESS", 0.9)


def social_security_numbers(text: str, _region: str) -> Iterator[Span]:
    """US social security (and individual taxpayer) numbers in groups of 3-2-4, or nine digits where they are named."""
    if not has_digit(text):
        return
    for match in _SSN.finditer(text):
        yield Span(match.start(), match.end(), "US_SSN", 0.85)
    for match in _SSN_PLAIN.finditer(text):
        yield Span(match.start(1), match.end(1), "US_SSN", 0.85)


def birth_dates(text: str, _region: str) -> Iterator[Span]:
    """Dates that are said to be somebody's birth; a birthday counts only with its year, else it is an appointment."""
    if not has_digit(text):
        return
    for match in _BORN.finditer(text):
        yield Span(match.start(1), match.end(1), "DATE_OF_BIRTH", 0.9)
    for match in chain(_BIRTHDAY.finditer(text), _AS_BIRTHDAY.finditer(text)):
        year = _YEAR.search(match.group(1))
        if year and int(year.group()) <= 2022:
            yield Span(match.start(1), match.end(1), "DATE_OF_BIRTH", 0.8)


_RESIDUE_DIGITS = re.compile(r"(?<!\w)(?<!\d[.,])\d(?:[ .\-/]?\d){6,}(?!\w|[.,:]\d)")
_RESIDUE_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+\s?@\s?[\w-]+(?:\s?\.\s?\w+)*")
_RESIDUE_RUN = re.compile(r"(?<!\w)(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9]{15,}(?!\w)")


def residue(text: str, _region: str) -> Iterator[Span]:
    """What looks like personal data whoever claims it: seven digits or more, an at sign between words, a long code.

    Dates, times, round amounts and decimals are ordinary. Score 0.1: it counts only where nobody else has claimed it.
    """
    if "@" in text:
        for match in _RESIDUE_EMAIL.finditer(text):
            yield Span(match.start(), match.end(), "RESIDUE", 0.1)
    if not has_digit(text):
        return
    for match in _RESIDUE_DIGITS.finditer(text):
        value = match.group()
        joined = value.isdigit()
        if _DATE_LIKE.fullmatch(value) or _ROUND.fullmatch(value) or (not joined and len(_digits(value)) < 9):
            continue
        yield Span(match.start(), match.end(), "RESIDUE", 0.1)
    for match in _RESIDUE_RUN.finditer(text):
        yield Span(match.start(), match.end(), "RESIDUE", 0.1)
