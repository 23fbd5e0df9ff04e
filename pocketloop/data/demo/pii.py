"""Texts whose personal data is known to the character, for measuring a scrubber."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from pocketloop.data.demo import people
from pocketloop.data.demo._random import Split, rng_for
from pocketloop.data.demo.grammar import Template, pii_sentences
from pocketloop.data.demo.people import Persona
from pocketloop.data.demo.writing import Said, Writer


class PiiSpan(BaseModel):
    """Characters `start` to `end` (exclusive) are a value of `type`."""

    model_config = ConfigDict(extra="forbid")

    start: int
    end: int
    type: str


class PiiRow(BaseModel):
    """A text, all personal data in it, and the locale (`de_DE`) of whoever is in it."""

    model_config = ConfigDict(extra="forbid")

    text: str
    spans: list[PiiSpan]
    locale: str


def demo_pii(split: Split, n: int, seed: int = 7) -> Iterator[PiiRow]:
    """`n` labelled texts; a third carries no personal data, among them look-alikes (order numbers, flights, "May").

    The splits share no template, no name and no other open value; the held-out one has three more locales.
    """
    sentences = pii_sentences()
    locales, weights = people.locales(split)
    for index in range(n):
        rng = rng_for("pii", split, seed, index)
        locale = rng.choices(locales, weights)[0]
        clean = index % 3 == 2
        text = rng.choice(sentences[f"clean {split}" if clean else split])
        owner = people.stranger(rng, split, locale)
        contacts = [people.stranger(rng, split, locale) for _ in range(3)]
        values = {kind: people.personal_value(kind, owner, rng, split) for kind in people.PERSONAL_KINDS}
        writer = Writer(rng, split, None if clean else Persona(owner, contacts, values))
        said = _repeated(writer, text)
        spans = [PiiSpan(start=start, end=end, type=kind) for start, end, kind in said.spans]
        yield PiiRow(text=said.text, spans=spans, locale=locale)


def _repeated(writer: Writer, text: str) -> Said:
    """Write a sentence in which a slot may stand twice for two different values."""
    seen: dict[str, int] = {}
    parts = []
    for piece in text.split("{"):
        name, brace, rest = piece.partition("}")
        if brace:
            seen[name] = seen.get(name, 0) + 1
            parts.append(f"{{{name}_{seen[name]}:{name}}}{rest}" if seen[name] > 1 else f"{{{name}}}{rest}")
        else:
            parts.append(piece)
    style = writer.rng.choice(["clean", "clean", "bare", "bare", "lower"])
    return writer.say(Template("".join(parts)), {}, style=style)
