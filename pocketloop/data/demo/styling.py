"""How a sentence looks: literals and values side by side, with capitals and full stops or without, with typos."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

_QUESTION = re.compile(
    r"(what|how|who|when|where|which|why|is|are|do|does|did|will|can|could|should|am|has|have|any)\b"
)
_FRAGILE = {"PASSWORD", "API_KEY", "CRYPTO", "IBAN", "URL", "LICENSE_PLATE"}
"""Types whose values change when their case does."""

Spans = list[tuple[int, int, str]]


@dataclass(frozen=True)
class Value:
    """A slot's words, the argument where it differs from them, the personal data in them, and whether they are open.

    `spans` are (start, end, type) within `text`. `fresh` says that a word of an open vocabulary is in it.
    """

    text: str
    argument: Any = None
    spans: tuple[tuple[int, int, str], ...] = ()
    fresh: bool = False

    @property
    def meaning(self) -> Any:
        """What stands in the call."""
        return self.text if self.argument is None else self.argument


Piece = tuple[str, Value | None]
"""A literal (text, None) or a filled slot (name, value)."""


def marked(text: str, kind: str) -> Value:
    """A value that is personal data from end to end."""
    return Value(text, None, ((0, len(text), kind),), True)


def joined(pieces: list[Piece]) -> tuple[str, Spans]:
    """The whole sentence and the personal data in it."""
    text, spans = "", []
    for name, value in pieces:
        if value is None:
            text += name
            continue
        spans += [(len(text) + start, len(text) + end, kind) for start, end, kind in value.spans]
        text += value.text
    return text, spans


def _lowered(text: str) -> str:
    """Lower case that keeps every character in its place (a few lower to two)."""
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _rewritten(pieces: list[Piece], change: Callable[[str], str]) -> list[Piece]:
    """The pieces with every literal changed."""
    return [(name, value) if value is not None else (change(name), value) for name, value in pieces]


def _single_spaced(text: str) -> str:
    return re.sub(r"\s+([,.?])", r"\1", re.sub(r" {2,}", " ", text))


def styled(pieces: list[Piece], style: str, rng: Random) -> list[Piece]:
    """Change how a sentence looks, keeping values verbatim except for case."""
    pieces = _trimmed(_rewritten(pieces, _single_spaced))
    whole = joined(pieces)[0]
    if style == "clean":
        pieces = _rewritten(pieces, lambda text: re.sub(r"\bi\b", "I", text))
        if pieces[0][1] is None and rng.random() < 0.8:
            pieces[0] = (pieces[0][0][:1].upper() + pieces[0][0][1:], None)
        return _ended(pieces, whole, rng)
    pieces = _rewritten(pieces, lambda text: text.replace("?", ""))
    if style == "typo":
        places = [i for i, (text, value) in enumerate(pieces) if value is None and re.search(r"[a-z]{5}", text)]
        if places:
            place = rng.choice(places)
            pieces[place] = (_mistyped(pieces[place][0], rng), None)
    fragile = any(kind in _FRAGILE for _, value in pieces if value for _, _, kind in value.spans)
    if style == "lower" and not fragile:
        pieces = [
            (name, replace(value, text=_lowered(value.text))) if value else (_lowered(name).replace(",", ""), value)
            for name, value in pieces
        ]
    return pieces


def _trimmed(pieces: list[Piece]) -> list[Piece]:
    """Without white space at either end."""
    if pieces and pieces[0][1] is None:
        pieces[0] = (pieces[0][0].lstrip(), None)
    if pieces and pieces[-1][1] is None:
        pieces[-1] = (pieces[-1][0].rstrip(), None)
    return [piece for piece in pieces if piece[1] is not None or piece[0]]


def _ended(pieces: list[Piece], whole: str, rng: Random) -> list[Piece]:
    """With a question mark or, often, a full stop."""
    if whole.endswith(("?", "!", ".")):
        return pieces
    if _QUESTION.match(whole.lower()):
        return [*pieces, ("?", None)] if rng.random() < 0.75 else pieces
    return [*pieces, (".", None)] if rng.random() < 0.3 else pieces


def _mistyped(text: str, rng: Random) -> str:
    """Two letters swapped, one lost, or one doubled in one word of five letters or more."""
    words = list(re.finditer(r"[a-z]{5,}", text))
    word = rng.choice(words)
    at = rng.randrange(word.start() + 1, word.end() - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :] if kind == 1 else text[:at] + text[at] + text[at:]
