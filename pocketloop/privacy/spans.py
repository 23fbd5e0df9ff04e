"""Where something stands in a text, and how overlapping finds are settled."""

from collections.abc import Iterable
from typing import NamedTuple

RESIDUE = "RESIDUE"
"""What looks like personal data but was claimed by no recognizer: the record goes to quarantine."""

PII_TYPES = (
    "PERSON",
    "PHONE_NUMBER",
    "EMAIL_ADDRESS",
    "ADDRESS",
    "DATE_OF_BIRTH",
    "CREDIT_CARD",
    "IBAN",
    "US_SSN",
    "LICENSE_PLATE",
    "PASSWORD",
    "API_KEY",
    "CRYPTO",
    "IP_ADDRESS",
    "URL",
    "USERNAME",
)
"""Every type that the scrubber knows; a trained recognizer may bring more."""


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text, taken for `type` with confidence `score` in [0, 1]."""

    start: int
    end: int
    type: str
    score: float = 1.0


def overlaps(a: Span, b: Span) -> bool:
    """Whether two spans share a character."""
    return a.start < b.end and b.start < a.end


def free_parts(span: Span, taken: Iterable[Span]) -> list[Span]:
    """What `taken` leaves of `span`, in order."""
    parts, start = [], span.start
    for other in sorted(t for t in taken if overlaps(span, t)):
        if other.start > start:
            parts.append(span._replace(start=start, end=other.start))
        start = max(start, other.end)
    if start < span.end:
        parts.append(span._replace(start=start))
    return parts


def trimmed(span: Span, text: str) -> Span | None:
    """Shrink a span to its first and last letter or digit; `None` when it has none."""
    start, end = span.start, span.end
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    return span._replace(start=start, end=end) if end > start else None


def settle(text: str, spans: Iterable[Span], first: Iterable[Span] = ()) -> list[Span]:
    """Make spans disjoint: those in `first` win, then the longest, then the surest.

    What a winner leaves of a loser stays personal data of the loser's type as far as it holds letters or digits, so
    that "Sandy Wu" found over "Sandy" never leaves "Wu" behind. Returns spans in order of position.
    """
    chosen: list[Span] = []
    order = sorted(set(first), key=_rank) + sorted(set(spans), key=_rank)
    for span in order:
        for part in free_parts(span, chosen):
            whole = part == span
            kept = part if whole else trimmed(part, text)
            if kept is not None:
                chosen.append(kept)
    return sorted(chosen)


def _rank(span: Span) -> tuple[int, float, int, str]:
    return (-(span.end - span.start), -span.score, span.start, span.type)
