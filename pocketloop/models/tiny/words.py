"""Words for the generated corpus: real English words by frequency, topic lexicons, and made-up names.

One word in twenty (by checksum, common words excepted) is held out of the training split and makes up the
rare words of the evaluation split, so that a copying score on it is a score on words never seen as such.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

COMMON = 3000
VOCABULARY = 36_000
HELD_OUT_ONE_IN = 20

ONSETS = (
    "b c d f g h j k l m n p r s t v w y z b c d f g h k l m n p r s t v "
    "br ch cl cr dr fl fr gl gr kr ph pl pr qu sh sk sl st th tr vl"
).split()
NUCLEI = "a e i o u a e i o u a e i o ai au ea ee ei ia ie io oa oo ou ue".split()
CODAS = ["", "", "", "", *"n r l s t m k x d g b th nd rk ll ss ng rt sh".split()]
ACCENTED = {"a": "áàäâãå", "e": "éèëê", "i": "íìï", "o": "óòöôø", "u": "úùü", "n": "ñ", "c": "ç", "s": "ß"}
OTHER_SCRIPTS = [
    "абвгдежзиклмнопрстуфхцчшэюя",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "अआइकखगचजटतदनपबमयरलवसह",
    "的一是不人在有我他这中大来上国",
]


@dataclass(frozen=True)
class Topic:
    """One topic of the lexicon."""

    name: str
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]


@cache
def topics() -> tuple[Topic, ...]:
    """Read `topics.txt`, one topic a line: `name: nouns; verbs; adjectives`."""
    found = []
    for line in (Path(__file__).parent / "topics.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, rest = line.split(":", 1)
        nouns, verbs, adjectives = (tuple(part.split()) for part in rest.split(";"))
        found.append(Topic(name, nouns, verbs, adjectives))
    return tuple(found)


@cache
def frequent_words() -> tuple[str, ...]:
    """English words by falling frequency: letters a to z only, at least two of them unless a word by itself."""
    from wordfreq import top_n_list

    plain = (w for w in top_n_list("en", 2 * VOCABULARY) if w.isalpha() and w.isascii())
    return tuple(w for w in plain if len(w) > 1 or w in ("a", "i"))[:VOCABULARY]


def held_out(word: str) -> bool:
    """Whether `word` (in lower case) belongs to the evaluation split if it is not a common word."""
    return zlib.crc32(word.lower().encode()) % HELD_OUT_ONE_IN == 0


class Words:
    """Random words for one split. `evaluation=True` draws every rare and made-up word from the held-out ones."""

    def __init__(self, rng: random.Random, *, evaluation: bool = False) -> None:
        self.rng = rng
        self.evaluation = evaluation
        words = frequent_words()
        self._common = words[:COMMON]
        self._rare = [w for w in words[COMMON:] if held_out(w) == evaluation]

    def common(self) -> str:
        """One of the most frequent words, frequent ones more often."""
        return self._common[int(COMMON * self.rng.random() ** 2)]

    def rare(self) -> str:
        """A rarer real word of this split."""
        return self.rng.choice(self._rare)

    def invented(self) -> str:
        """A pronounceable made-up word of two to four syllables, of this split."""
        rng = self.rng
        while True:
            count = rng.choice((2, 2, 2, 3, 3, 4))
            parts = [rng.choice(ONSETS) + rng.choice(NUCLEI) for _ in range(count)]
            for i in {rng.randrange(count), count - 1}:
                parts[i] += rng.choice(CODAS)
            if rng.random() < 0.2:
                parts[0] = parts[0].lstrip("bcdfghjklmnpqrstvwxyz") or parts[0]
            word = "".join(parts)
            if rng.random() < 0.08:
                word = "".join(rng.choice(ACCENTED[c]) if c in ACCENTED and rng.random() < 0.4 else c for c in word)
            if held_out(word) == self.evaluation:
                return word

    def foreign(self) -> str:
        """A made-up word in another script, which the tokenizer spells in bytes."""
        letters = self.rng.choice(OTHER_SCRIPTS)
        return "".join(self.rng.choice(letters) for _ in range(self.rng.randint(2, 6)))

    def any(self) -> str:
        """A word for copying: mostly real, sometimes made up."""
        roll = self.rng.random()
        if roll < 0.25:
            return self.common()
        if roll < 0.78:
            return self.rare()
        return self.invented()

    def topic(self) -> Topic:
        """A random topic."""
        return self.rng.choice(topics())

    def phrase(self, shortest: int = 1, longest: int = 5) -> str:
        """Some words in a row, in lower case, title case or as they come; function words inside now and then."""
        rng = self.rng
        count = min(rng.randint(shortest, longest), rng.randint(shortest, longest))
        pick: Callable[[], str] = rng.choice((self.any, self.any, self.rare, lambda: rng.choice(self.topic().nouns)))
        parts = [pick() for _ in range(count)]
        if count > 1 and rng.random() < 0.35:
            parts.insert(rng.randrange(1, count), rng.choice(JOINTS))
        if rng.random() < 0.12:
            parts.insert(0, rng.choice(("the", "my", "a", "our")))
        return self.cased(" ".join(parts))

    def cased(self, text: str) -> str:
        """`text` in lower case, title case, or now and then with one capital or all of them."""
        roll = self.rng.random()
        if roll < 0.5:
            return text
        if roll < 0.9:
            return " ".join(w[:1].upper() + w[1:] for w in text.split(" "))
        if roll < 0.96:
            return text[:1].upper() + text[1:]
        return text.upper()


JOINTS = "of and the in for to on with a from at by or & de la is".split()
