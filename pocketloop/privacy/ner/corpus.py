"""Labelled sentences for training, generated: templates, names of many countries, and much that only looks like a name.

Half of the names are made up from halves of real ones, so that the model learns what stands around a name more than
the names. Held-out sets use wordings of their own and countries that are not in `TRAINING_LOCALES`.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.privacy.names import LAST, gazetteer, names_of, ordinary_words
from pocketloop.privacy.ner import values
from pocketloop.privacy.spans import Span

_LATIN = tuple(
    """en_US en_GB en_IN en_PK en_KE en_NZ de_DE de_AT de_CH es_ES es_MX es_AR es_CO es_CL fr_FR fr_CA it_IT pt_BR pt_PT
    pl_PL tr_TR da_DK no_NO sk_SK hr_HR sl_SI lv_LV az_AZ uz_UZ ig_NG sw tw_GH""".split()
)
TRAINING_LOCALES = _LATIN + tuple(
    """bg_BG ru_RU uk_UA mk_MK ne_NP hi_IN mr_IN ta_IN bn_BD ar_AA ar_DZ he_IL fa_IR ka_GE hy_AM zh_CN zh_TW ja_JP ko_KR
    th_TH el_GR""".split()
)
"""Countries whose names are trained on; one in seven sentences has a name in another script than the Latin one."""
_SECTIONS = {"person": 34, "address": 9, "birth": 4, "password": 4, "plate": 4, "none": 38, "words": 18}
_STREWN = (
    "{Word} {Word} {n} {date} {time} {place} {org} {thing} {food} {code} {weekday} {month} {brand} {coined}".split()
)
_COINED = {"org", "brand", "band", "place", "app", "food", "song", "book", "landmark", "car", "team", "cinema"}
"""Kinds of things that now and then bear a word that nobody has seen."""
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_TYPES = {
    "PERSON": "PERSON",
    "TITLED": "PERSON",
    "ADDRESS": "ADDRESS",
    "BIRTH": "DATE_OF_BIRTH",
    "PASSWORD": "PASSWORD",
    "PIN": "PASSWORD",
    "PLATE": "LICENSE_PLATE",
}
LABELS = tuple(sorted(set(_TYPES.values())))


class Row(NamedTuple):
    """A sentence and the personal data in it."""

    text: str
    spans: list[Span]


def rows(seed: int) -> Iterator[Row]:
    """An endless stream of labelled sentences; one seed always gives the same."""
    rng = random.Random(f"ner {seed}")
    while True:
        row = _row(rng)
        if rng.random() < 0.12:
            row = _joined(row, _row(rng), rng.choice([". ", ", ", " and ", " ", "; ", "! "]))
        if row.text:
            yield row


def write_rows(sentences: Iterable[Row], path: Path) -> dict[str, int]:
    """Write sentences as JSON lines; returns how many spans of each type there are."""
    counts: Counter[str] = Counter()

    def lines() -> Iterator[dict[str, Any]]:
        for row in sentences:
            counts.update(span.type for span in row.spans)
            yield {"text": row.text, "spans": [[s.start, s.end, s.type] for s in row.spans]}

    write_jsonl(path, lines())
    return dict(sorted(counts.items()))


def read_rows(path: Path) -> Iterator[Row]:
    """What `write_rows` wrote."""
    for line in read_jsonl(path):
        yield Row(line["text"], [Span(start, end, kind) for start, end, kind in line["spans"]])


@lru_cache(maxsize=1)
def _templates() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in _lines("templates.txt"):
        if line.startswith("== "):
            name = line.removeprefix("== ")
        else:
            found.setdefault(name, []).append(line)
    return found


@lru_cache(maxsize=1)
def _values() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in _lines("values.txt"):
        if line.startswith("== "):
            name = line.removeprefix("== ")
        else:
            found.setdefault(name, []).extend(entry.strip() for entry in line.split(";") if entry.strip())
    return found


def _lines(name: str) -> list[str]:
    text = resources.files("pocketloop.privacy.ner").joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@lru_cache(maxsize=1)
def common_words() -> list[str]:
    """Frequent English words, the most frequent first; `wordfreq` is needed, as it is for training alone.

    Listed names are left out, but for everyday words and the most frequent ones that are at most a surname ("back").
    """
    from wordfreq import top_n_list

    listed, ordinary = gazetteer(), ordinary_words()
    words = [w for w in top_n_list("en", 60_000) if w.isalpha() and w.isascii() and len(w) > 2]
    often = set(words[:4000])
    return [w for w in words if w in ordinary or w not in listed or (listed[w] == LAST and w in often)]


@lru_cache(maxsize=1)
def _weights() -> list[float]:
    """Running sums of the words' frequencies (by Zipf's law), flattened so that rare ones are seen too."""
    return list(accumulate((rank + 10) ** -0.35 for rank in range(len(common_words()))))


def _common(rng: random.Random) -> str:
    return rng.choices(common_words(), cum_weights=_weights())[0]


def _coined(rng: random.Random) -> str:
    """A word that nobody has seen, for a place, a dish or a brand: of English halves, or as foreign as a name."""
    if rng.random() < 0.5:
        return _mixed(rng, rng.choice(_pool(rng.choice(_LATIN))[rng.randrange(2)]), _common(rng))
    if rng.random() < 0.4:
        pool = _pool(rng.choice(_LATIN))[rng.randrange(2)]
        return _mixed(rng, rng.choice(pool), rng.choice(pool))
    return _mixed(rng, _common(rng), _common(rng))


def _mixed(rng: random.Random, head: str, tail: str) -> str:
    return (head[: max(2, len(head) - rng.randint(1, 3))] + tail[-rng.randint(2, 4) :]).lower()


def _expanded(template: str, rng: random.Random) -> str:
    """All choices made, from the innermost out."""
    while True:
        chosen = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), template)
        if chosen == template:
            return chosen
        template = chosen


def _row(rng: random.Random) -> Row:
    section = rng.choices(list(_SECTIONS), list(_SECTIONS.values()))[0]
    template = _strewn(rng) if section == "words" else _expanded(rng.choice(_templates()[section]), rng)
    template = " ".join(template.split())
    locale = rng.choice(TRAINING_LOCALES if rng.random() < 0.35 else _LATIN)
    look = rng.random()
    lower = look < 0.42
    varied = section in ("person", "address", "none") and rng.random() < 0.25
    text, spans, at = "", [], 0
    for match in _SLOT.finditer(template):
        text += _literal(template[at : match.start()], rng, lower, varied)
        value, kind = _fill(match.group(1), rng, locale)
        value = value.lower() if lower and kind not in ("PASSWORD", "LICENSE_PLATE") else value
        if kind:
            spans.append(Span(len(text), len(text) + len(value), kind))
        text += value
        at = match.end()
    text += _literal(template[at:], rng, lower, varied)
    if lower:
        text = text.rstrip(".!")
    elif look < 0.75 and text[:1].islower():
        text = text[:1].upper() + text[1:]
    elif look > 0.985 and len(text.upper()) == len(text):
        text = text.upper()
    if not lower and text and text[-1].isalnum() and rng.random() < 0.4:
        text += rng.choice(".?!") if rng.random() < 0.3 else "."
    return Row(text, spans)


def _strewn(rng: random.Random) -> str:
    """Words without a sense, among them at times a name: which words are nobody's must be known without context."""
    words = [rng.choice(_STREWN) if rng.random() < 0.15 else "{word}" for _ in range(rng.randint(4, 14))]
    if rng.random() < 0.4:
        words[rng.randrange(len(words))] = "{PERSON}"
    return " ".join(words)


def _literal(text: str, rng: random.Random, lower: bool, varied: bool) -> str:
    """A template's own words, some of them exchanged, misspelt, and without commas in dictated text."""
    if not lower:
        text = re.sub(r"\bi\b", "I", text)
    elif rng.random() < 0.7:
        text = text.replace(",", "").replace("?", "")
    if varied:
        text = re.sub(r"(?<!\w)[a-z]{4,}(?!\w)", lambda m: _common(rng) if rng.random() < 0.2 else m.group(), text)
    if len(text) > 8 and rng.random() < 0.04:
        at = rng.randrange(1, len(text) - 2)
        if text[at : at + 2].isalpha():
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def _joined(a: Row, b: Row, sign: str) -> Row:
    head = a.text.rstrip(".!?") + sign
    return Row(head + b.text, a.spans + [s._replace(start=s.start + len(head), end=s.end + len(head)) for s in b.spans])


def _fill(slot: str, rng: random.Random, locale: str) -> tuple[str, str]:
    """A slot's words and their type, empty for what is nobody's."""
    if slot in _TYPES:
        maker: Callable[[random.Random, str], str] = _MAKERS[slot]
        return maker(rng, locale), _TYPES[slot]
    if slot in ("word", "Word"):
        return (_common(rng) if slot == "word" else _common(rng).title()), ""
    if slot == "coined" or (slot in _COINED and rng.random() < 0.4):
        word = _coined(rng)
        return rng.choice([word, word.title(), word.title(), f"{word} {_common(rng)}".title()]), ""
    if slot == "place" and rng.random() < 0.5:
        return (values.country(rng) if rng.random() < 0.3 else values.town(rng)), ""
    if slot in values.NUMBERS:
        return values.NUMBERS[slot](rng), ""
    text = _expanded(rng.choice(_values()[slot]), rng)
    return _SLOT.sub(lambda match: _fill(match.group(1), rng, locale)[0], text), ""


@lru_cache(maxsize=128)
def _pool(locale: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    firsts, lasts = names_of(locale)
    first, last = (tuple(name for name in part if len(name) > 1) for part in (firsts, lasts))
    return first, last or first


def _part(rng: random.Random, pool: tuple[str, ...]) -> str:
    """A name of the pool, or one made of the beginning of one and the end of another."""
    name = rng.choice(pool)
    if rng.random() < 0.5 or len(name) < 4 or not name.isalpha():
        return name
    other = rng.choice(pool)
    if len(other) < 4 or not other.isalpha():
        return name
    return name[: rng.randint(2, len(name) - 1)] + other[-rng.randint(2, min(5, len(other) - 1)) :].lower()


def _person(rng: random.Random, locale: str) -> str:
    firsts, lasts = _pool(locale)
    first, last = _part(rng, firsts), _part(rng, lasts)
    particle = rng.choice(["van ", "de ", "von ", "da ", "al ", "del ", "bin ", "van der ", "Mac ", "O'", "Mc"])
    forms = {
        first: 46,
        f"{first} {last}": 40,
        f"{first} {rng.choice('ABCDEFGHJKLMNPRSTVW')}. {last}": 4,
        f"{first} {_part(rng, firsts)} {last}": 2,
        f"{first}-{_part(rng, firsts)}": 2,
        f"{first} {last}-{_part(rng, lasts)}": 2,
        f"{first} {particle}{last}": 2,
        last: 2,
    }
    return rng.choices(list(forms), list(forms.values()))[0]


def _titled(rng: random.Random, locale: str) -> str:
    return _part(rng, _pool(locale)[1]) if rng.random() < 0.75 else _person(rng, locale)


_MAKERS: dict[str, Callable[[random.Random, str], Any]] = {
    "PERSON": _person,
    "TITLED": _titled,
    "ADDRESS": values.address,
    "BIRTH": values.birth_date,
    "PASSWORD": values.password,
    "PIN": values.pin,
    "PLATE": values.plate,
}
