"""Values of personal data: their normal forms, and where they stand verbatim in other texts."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from pocketloop.privacy.names import gazetteer, ordinary_words
from pocketloop.privacy.spans import Span

_FORMAT_CHARACTERS = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"\w+")
_RUN = re.compile(r"[^\W_]+")
_COMPACT_TYPES = {"CREDIT_CARD", "IBAN", "US_SSN", "LICENSE_PLATE"}
_EXACT_TYPES = {"API_KEY", "PASSWORD", "CRYPTO"}

_GENERIC = set(
    """mom mum mommy mummy mama dad daddy papa mother father parents sister brother son daughter wife husband
    partner boyfriend girlfriend aunt auntie uncle cousin nephew niece grandma grandpa granny grandmother
    grandfather boss manager doctor dentist landlord roommate neighbor neighbour babysitter plumber mechanic lawyer
    teacher coach friend friends family team everyone everybody all me myself home house work office school gym here
    there church hospital pharmacy voicemail police reception support none null unknown true false yes no n/a""".split()
)
"""Words that name a role or a place in somebody's life, and so nobody in particular."""


def clean_text(text: str) -> str:
    """Bring text into the form in which it is searched and stored: NFC, no invisible characters, valid UTF-8."""
    if text.isascii():
        return text
    text = _SURROGATES.sub("\ufffd", _FORMAT_CHARACTERS.sub("", text))
    return unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """Lower case with every character at its old place (a few lower to two), whatever stands around it.

    A sigma lowers to another letter at the end of a word, which would part a value from itself.
    """
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = "".join(low if len(low := char.lower()) == 1 else char for char in text)
    return lowered.replace("\u03c2", "\u03c3")


def words_of(text: str) -> list[str]:
    """The runs of letters and digits of a text, case folded."""
    return _RUN.findall(unicodedata.normalize("NFKC", text).casefold())


def compact(text: str) -> str:
    """Letters and digits alone, case folded: what fingerprints are made of, however a value is spaced or hyphenated."""
    return "".join(words_of(text))


def normalise(kind: str, value: str, region: str = "US") -> str:
    """The form under which two spellings of one value get one pseudonym.

    Phone numbers become E.164 as dialled from `region` (ISO 3166); numbers of cards and accounts lose their spaces;
    secrets stay as they are; everything else is case-folded with single spaces.
    """
    if kind == "PHONE_NUMBER":
        return _e164(value, region)
    if kind in _EXACT_TYPES:
        return value.strip()
    if kind in _COMPACT_TYPES:
        return compact(value)
    folded = unicodedata.normalize("NFKC", value).casefold()
    if kind == "EMAIL_ADDRESS":
        folded = re.sub(r"\s*[\[(]?\bat\b[\])]?\s*", "@", folded) if "@" not in folded else folded
        return re.sub(r"\s*[\[(]?\bdot\b[\])]?\s*", ".", folded).replace(" ", "")
    if kind == "ADDRESS":
        return " ".join(_TOKEN.findall(folded))
    return " ".join(folded.split())


@lru_cache(maxsize=4096)
def _e164(value: str, region: str) -> str:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return compact(value)
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def fingerprint_forms(kind: str, value: str, region: str = "US") -> list[str]:
    """Compact forms under which a value would be recognised again; a phone number also without its country code."""
    forms = {compact(value)}
    if kind == "PHONE_NUMBER":
        number = compact(_e164(value, region))
        forms |= {number, number[-10:]} if len(number) > 10 else {number}
    return sorted(form for form in forms if form)


def is_ordinary(value: str) -> bool:
    """Whether the value is one everyday word, which says nothing about anybody."""
    return fold(value.strip()) in ordinary_words()


def is_generic(value: str) -> bool:
    """Whether a value in a personal slot names nobody: a role ("my wife"), a place ("home"), a short service number."""
    folded = re.sub(r"^(my|the|our|your|his|her)\s+", "", fold(value.strip(" .!?,'\"")))
    digits = compact(folded)
    return folded in _GENERIC or not digits or (digits.isdigit() and len(digits) <= 3)


def is_distinctive(kind: str, value: str) -> bool:
    """Whether meeting the value elsewhere would mean that it came from here.

    A first name or an everyday word turns up by itself in any text; seven digits, two names in a row or a long rare
    word do not. A web address counts when it has a path.
    """
    form = compact(value)
    tokens = _TOKEN.findall(value.casefold())
    if form.isdigit():
        return len(form) >= 7
    if kind == "URL":
        return len(tokens) >= 4 and len(form) >= 12
    if len(tokens) >= 2:
        return len(form) >= 8 and not all(token in ordinary_words() for token in tokens)
    return len(form) >= 7 and form not in ordinary_words() and form not in gazetteer()


Form = tuple[str, str]
"""A value as it spreads through a device's records: its type, and its text folded."""


@dataclass(frozen=True)
class Value:
    """One value of personal data as it was written; `exact` values are searched in their own case only.

    `shared` values are looked for in all records of the device, the others only in the event they stand in.
    """

    text: str
    kind: str
    exact: bool = False
    shared: bool = True
    slot: bool = False

    @property
    def form(self) -> Form:
        """Type and folded text: all that another event needs to know of a shared value."""
        return self.kind, fold(self.text)


def make_value(text: str, kind: str, *, slot: bool = False) -> Value:
    """Decide how widely a value is searched: everyday words and very short values only nearby and in their own case."""
    ordinary = is_ordinary(text)
    form = compact(text)
    too_short = len(form) < (6 if form.isdigit() else 3 if form.isascii() else 2)
    return Value(text, kind, exact=ordinary or len(form) < 2, shared=not (ordinary or too_short), slot=slot)


def parts_of(value: Value) -> list[Value]:
    """The words of somebody's full name, each of which gives the person away by itself."""
    words = _TOKEN.findall(value.text) if value.kind == "PERSON" else []
    made = [make_value(word, "PERSON") for word in words if len(words) > 1 and len(word) >= 4]
    return [part for part in made if part.shared and not is_generic(part.text)]


def find_values(text: str, values: Iterable[Value]) -> Iterator[tuple[Span, Value]]:
    """Every whole-word occurrence of the values, ignoring case unless they are exact."""
    folded = fold(text)
    for value in values:
        needle, haystack = (value.text, text) if value.exact else (fold(value.text), folded)
        if not needle:
            continue
        start = haystack.find(needle)
        while start >= 0:
            end = start + len(needle)
            if _is_edge(text, needle[0], start - 1) and _is_edge(text, needle[-1], end):
                yield Span(start, end, value.kind), value
            start = haystack.find(needle, start + 1)


class FormIndex:
    """Folded values by their first two characters, so that a text is held against thousands of them in one pass."""

    def __init__(self, forms: Iterable[Form]) -> None:
        self._by_start: dict[str, list[Form]] = {}
        for form in forms:
            self._by_start.setdefault(form[1][:2], []).append(form)

    def standing_in(self, text: str) -> set[Form]:
        """The values that stand in a text anywhere, in any case, at a word's edge or not."""
        folded = fold(text)
        starts = {folded[i : i + 2] for i in range(len(folded))} & self._by_start.keys()
        return {form for start in starts for form in self._by_start[start] if form[1] in folded}


def _is_edge(text: str, inner: str, outer: int) -> bool:
    """Whether a word ends between the value's own character `inner` and the text's character at `outer`.

    Scripts without capitals are often written without spaces, or with prefixes joined on: there, anything is an edge.
    """
    if not 0 <= outer < len(text) or not _is_word(inner) or unicodedata.category(inner) == "Lo":
        return True
    return not _is_word(text[outer])


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"
