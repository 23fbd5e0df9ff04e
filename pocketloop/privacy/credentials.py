"""Patterns for what opens doors and identifies machines: keys, passwords, number plates, wallets, handles."""

import re
from collections.abc import Iterator

from pocketloop.privacy.patterns import has_digit
from pocketloop.privacy.spans import Span

_CRYPTO = re.compile(r"(?<!\w)(?:0x[0-9a-fA-F]{40}|bc1[a-z0-9]{25,60}|[13][1-9A-HJ-NP-Za-km-z]{25,34})(?!\w)")
_USERNAME = re.compile(r"(?<![\w@.])@[A-Za-z_][\w.]{1,29}(?<!\.)(?![\w@])")
_KEY = re.compile(
    r"(?<![\w-])(?:sk|pk|rk)[-_](?:live|test|proj|ant)?[-_]?[A-Za-z0-9_-]{16,}"
    r"|(?<!\w)gh[pousr]_[A-Za-z0-9]{20,}|(?<!\w)github_pat_\w{20,}|(?<!\w)(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)"
    r"|(?<!\w)AIza[\w-]{30,}|(?<!\w)xox[abposr]-[\w-]{10,}|(?<!\w)glpat-[\w-]{16,}|(?<!\w)hf_[A-Za-z0-9]{20,}"
    r"|(?<!\w)(?:key|tok|token|secret)[-_][A-Za-z0-9]{20,}|(?<!\w)eyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]*)?"
)
_NAMED_KEY = re.compile(
    r"\b(?:api[ _-]?key|access[ _-]?(?:key|token)|auth[ _-]?token|secret(?:[ _-]?key)?|bearer|token)\b\W{0,3}"
    r"(?:(?:is|for|to|=)\W{1,3})?(?=[\w-]*\d)([\w-]{12,})",
    re.I,
)
_OPAQUE = re.compile(r"(?<![\w/.-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[A-Za-z0-9_-]{24,}(?![\w/@-])")
_LOCKS = (
    r"(?:password|passwort|passcode|passphrase|pass\s?word|pwd|pin(?:[ -]?code)?"
    r"|(?:wi-?fi|alarm|door|gate|access|entry|security|lock)\s+(?:key|code))"
)
_PASSWORD = re.compile(
    rf"\b{_LOCKS}\b(?:\s+(?:for|of|to|at|on|in)\s+(?:the|my|our)?\s*[\w-]+(?:\s[\w-]+){{0,2}})??"
    r"\s*(?:\bis\b|\bwas\b|=|:|\bto\b|\bas\b)\s*(?:now\s+|set to\s+|called\s+)?([\"'“‘]?)(\S{3,64})",
    re.I,
)
_BARE_PASSWORD = re.compile(r"\b(?:password|passcode|passphrase|pwd)\s+(?=\S*\d)(?=\S*[^\W\d_])(\S{6,64})", re.I)
_BARE_PIN = re.compile(r"\b(?:pin|passcode|(?:alarm|door|gate|access|entry|security|lock)\s+code)\s+(\d{3,8})\b", re.I)
_NO_PASSWORD = set(
    """wrong right correct incorrect expired invalid weak strong too not no now the a an my your our his her this that
    it working still reset change changed required needed forgotten lost gone in on at for and or to be been being
    again broken what something somewhere here there easy hard long short secret private protected safe secure written
    work home go get see""".split()
)

_PLATE_NAMES = (
    r"(?:(?:license|licence|number|registration|car|vehicle|reg)\s+(?:plates?|number|tag)|plates?(?:\s+number)?"
    r"|reg(?:istration)?|tag number)"
)
_PLATE_CONTEXT = re.compile(
    rf"\b{_PLATE_NAMES}\b(?:\s+(?:of|for|on)\s+(?:the|my|our|his|her)\s+\w+)?\W{{0,3}}"
    r"(?:(?:is|was|are|number|reads|with|=)\W{1,3}){0,2}"
    r"([A-ZÄÖÜ0-9]{1,5}(?:[ \-·][A-ZÄÖÜ0-9]{1,5}){0,3}|[A-ZÄÖÜ0-9]{4,9})(?!\w)",
    re.I,
)
_CAR = re.compile(
    r"\b(?:car|vehicle|van|truck|taxi|cab|uber)\b\W{1,3}(?:(?:with|is|plate|plates|number|reg)\W{1,3}){0,2}"
    r"([A-Z0-9]{1,4}[ -]?[A-Z0-9]{2,4}(?:[ -][A-Z0-9]{1,4})?)(?!\w)"
)
_PLATE_SHAPE = re.compile(
    r"(?<![\w-])(?:[A-Z]{2}\d{2} [A-Z]{3}|[A-ZÄÖÜ]{1,3}-[A-Z]{1,2} \d{1,4}[EH]?|[A-Z]{2}-\d{3}-[A-Z]{2})(?![\w-])"
)


def api_keys(text: str, _region: str) -> Iterator[Span]:
    """Keys with a known prefix, what is called a key or token, and long runs that mix letters and digits."""
    if len(text) < 12:
        return
    for match in _KEY.finditer(text):
        yield Span(match.start(), match.end(), "API_KEY", 1.0)
    if not has_digit(text):
        return
    for match in _NAMED_KEY.finditer(text):
        yield Span(match.start(1), match.end(1), "API_KEY", 0.8)
    for match in _OPAQUE.finditer(text):
        run = match.group()
        if sum(c.isdigit() for c in run) >= 3 or not (run.islower() or run.isupper()):
            yield Span(match.start(), match.end(), "API_KEY", 0.5)


def passwords(text: str, _region: str) -> Iterator[Span]:
    """What follows "password is", "pin:", "door code to"; an everyday word after it ("is wrong") is no password."""
    for match in _PASSWORD.finditer(text):
        quote, raw = match.group(1), match.group(2)
        closing = {"“": "”", "‘": "’"}.get(quote, quote)
        value = raw.split(closing)[0] if closing and closing in raw else raw.rstrip(".,;:?)\"'”’")
        if len(value) < 3 or (not quote and value.lower().strip(".,!?") in _NO_PASSWORD) or value.startswith("<"):
            continue
        yield Span(match.start(2), match.start(2) + len(value), "PASSWORD", 0.7)
    for match in _BARE_PASSWORD.finditer(text):
        yield Span(match.start(1), match.start(1) + len(match.group(1).rstrip(".,;:?)")), "PASSWORD", 0.7)
    for match in _BARE_PIN.finditer(text):
        yield Span(match.start(1), match.end(1), "PASSWORD", 0.7)


def license_plates(text: str, _region: str) -> Iterator[Span]:
    """Number plates: where a plate, registration or car is spoken of, and three national shapes by themselves."""
    if not has_digit(text):
        return
    for pattern in (_PLATE_CONTEXT, _CAR):
        for match in pattern.finditer(text):
            span = _plate(match.group(1), match.start(1))
            if span:
                yield span
    for match in _PLATE_SHAPE.finditer(text):
        yield Span(match.start(), match.end(), "LICENSE_PLATE", 0.6)


def _plate(value: str, start: int) -> Span | None:
    """The longest run of groups in capitals and digits that has a digit and is long enough for a plate."""
    groups = list(re.finditer(r"[A-Za-zÄÖÜäöü0-9]+", value))
    while groups:
        raw = value[: groups[-1].end()]
        last = groups[-1].group()
        size = sum(len(g.group()) for g in groups)
        if 4 <= size <= 10 and has_digit(raw) and (has_digit(last) or last.isupper() or size >= 6):
            return Span(start, start + len(raw), "LICENSE_PLATE", 0.8)
        groups.pop()
    return None


def crypto_wallets(text: str, _region: str) -> Iterator[Span]:
    """Bitcoin and Ethereum addresses by shape; a mistyped one is somebody's all the same, so no checksum is asked."""
    if len(text) < 26:
        return
    for match in _CRYPTO.finditer(text):
        if has_digit(match.group()):
            yield Span(match.start(), match.end(), "CRYPTO", 0.95)


def usernames(text: str, _region: str) -> Iterator[Span]:
    """Handles of social networks (`@sandy_wu`)."""
    if "@" in text:
        for match in _USERNAME.finditer(text):
            yield Span(match.start(), match.end(), "USERNAME", 0.7)
