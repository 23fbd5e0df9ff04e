"""The leak audit: does anything that was found in a person's records still stand in what is to be kept of them?

It knows nothing of how values are replaced, and looks for more than verbatim copies: case, spacing and width do not
matter, and a number of a phone, card or account is recognised by its digits however they are set apart.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

_PLACEHOLDER = re.compile(r"<[A-Z_]+_[0-9a-f]{6}>")
_NUMBERS = {"PHONE_NUMBER", "CREDIT_CARD", "IBAN", "US_SSN"}
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\s()./+-]{1,3}(?=\d)")
_DIGITS = re.compile(r"\d{7,}")
_FEWEST_DIGITS = 7


class LeakSearch:
    """Searches records of one person for values (type, text) that were found anywhere in that person's records."""

    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        self._words: set[str] = set()
        self._numbers: set[str] = set()
        for kind, text in values:
            form = _plain(text)
            if form:
                self._words.add(form)
            digits = "".join(c for c in form if c.isdigit())
            if kind in _NUMBERS and len(digits) >= _FEWEST_DIGITS:
                self._numbers.add(digits[-10:] if kind == "PHONE_NUMBER" else digits)

    def count(self, record: dict[str, Any]) -> int:
        """How many of the values stand in a scrubbed event, as JSON has it."""
        texts = [_plain(_PLACEHOLDER.sub("\n", text)) for text in _texts(record)]
        everything = "\n".join(texts)
        found = sum(1 for form in self._words if form in everything and _whole(form).search(everything))
        if not self._numbers:
            return found
        said = (_DIGITS.findall(_BETWEEN_DIGITS.sub("", text)) for text in texts)
        runs = [run for runs in said for run in runs]
        return found + sum(1 for number in self._numbers if any(number in run for run in runs))


def _texts(record: dict[str, Any]) -> Iterator[str]:
    """Everything in the record that did not come from a fixed list of words or from the scrubber."""
    fixed = {"adapter": "skill", "feedback": "rating"}
    for key in ("event_id", "app_version", "locale", "adapter", "feedback"):
        yield from _strings(_without(record.get(key), fixed.get(key)))
    for message in record["messages"]:
        yield from _strings(_without(message, "role"))
    yield from record.get("metrics") or {}
    yield str((record.get("consent") or {}).get("policy", ""))


def _without(value: Any, name: str | None) -> Any:
    return {key: part for key, part in value.items() if key != name} if isinstance(value, dict) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _plain(text: str) -> str:
    lines = unicodedata.normalize("NFKC", text).casefold().split("\n")
    return "\n".join(" ".join(line.split()) for line in lines)


def _whole(form: str) -> re.Pattern[str]:
    """The form as a word of its own; where a script sets no spaces, anywhere."""
    if any(unicodedata.category(c) == "Lo" for c in form):
        return re.compile(re.escape(form))
    left = r"(?<!\w)" if re.match(r"\w", form[0]) else ""
    right = r"(?!\w)" if re.match(r"\w", form[-1]) else ""
    return re.compile(left + re.escape(form) + right)
