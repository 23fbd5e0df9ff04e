"""The embedded recognizer: a small spaCy tagger that gives each word the chance of being personal data, by type.

Its words are described by their form, their ending, their shape, and by whether they are everyday words or listed
names. A chance for each word, rather than a choice for the whole sentence, lets the scrubber tell sure finds from
unsure ones, and lets many messages be read in one multiplication.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.files import atomic_dir, write_json
from pocketloop.privacy.names import gazetteer, ordinary_words
from pocketloop.privacy.spans import Span

if TYPE_CHECKING:
    from spacy.language import Language

EMBEDDED = Path(__file__).parent / "model"
WEIGHTS, WORDS, CARD = "weights.bin", "words.bin", "model.json"
_BATCH = 64
_NAMES = {"PERSON", "ADDRESS"}
_SURE_SCORE = 0.5
"""Scores of sure finds lie from here to 0.9, those of unsure words below 0.39."""
_WITH_DIGITS = {"ADDRESS", "DATE_OF_BIRTH", "LICENSE_PLATE"}
_WITH_LETTERS = {"PERSON", "ADDRESS", "PASSWORD", "LICENSE_PLATE"}


SURE = {"PERSON": 0.4, "ADDRESS": 0.45, "DATE_OF_BIRTH": 0.9, "PASSWORD": 0.97, "LICENSE_PLATE": 0.97}


class Shape(BaseModel):
    """Size of the network: columns of the word tables, their rows, and layers of convolution over three words each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = 96
    depth: int = 4
    norms: int = 3000
    kinds: int = 32
    endings: int = 2000
    shapes: int = 500


class ModelCard(BaseModel):
    """What the weights belong to, and the chances from which a word is (`sure`) or may be (`unsure`) personal data.

    `sure_of_rare` holds for names: a word that is not everyday English is one more readily. Patterns look after
    passwords and number plates as well, so that the model must be nearly certain of them.
    """

    model_config = ConfigDict(extra="forbid")

    labels: list[str]
    shape: Shape
    language: str
    seed: int
    rows: int
    sure: dict[str, float] = SURE
    sure_of_rare: float = 0.15
    unsure: float = 0.12


class Vocabulary:
    """What is known of a word beside its spelling: whether it is everyday English, and whether a list of names has it.

    `common` holds 32-bit hashes of frequent words that are nobody's name.
    """

    def __init__(self, common: Iterable[int]) -> None:
        self._common = frozenset(common)

    @classmethod
    def of(cls, words: Iterable[str]) -> "Vocabulary":
        """A vocabulary of lower-cased words."""
        return cls(crc32(word.encode()) for word in words)

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """What `save` wrote."""
        data = path.read_bytes()
        return cls(struct.unpack(f"<{len(data) // 4}I", data))

    def save(self, path: Path) -> None:
        """Write the hashes, sorted, four bytes each."""
        path.write_bytes(struct.pack(f"<{len(self._common)}I", *sorted(self._common)))

    def kind(self, word: str) -> str:
        """`o` for an everyday word, `c` for a common one, and the digit of the gazetteer's bits."""
        low = word.lower()
        plain = "o" if low in ordinary_words() else "c" if crc32(low.encode()) in self._common else ""
        return f"{plain}{gazetteer().get(low, 0)}"


def tags(labels: Sequence[str]) -> list[str]:
    """`O`, and beginning and inside of each label."""
    return ["O", *(f"{side}-{label}" for label in labels for side in "BI")]


def build(card: ModelCard, kind: Callable[[str], str], language: str | None = None) -> "Language":
    """An untrained pipeline of one tagger; `kind` describes a word in the place of spaCy's one-letter prefix."""
    import spacy
    from spacy.attrs import PREFIX
    from spacy.tokens import Doc
    from spacy.training import Example
    from spacy.vocab import create_vocab

    shape = card.shape
    code = language or card.language
    kind_of_language = spacy.util.get_lang_class(code)
    vocab = create_vocab(code, kind_of_language.Defaults)
    vocab.lex_attr_getters[PREFIX] = kind
    nlp = kind_of_language(vocab)
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": shape.width,
        "attrs": ["NORM", "PREFIX", "SUFFIX", "SHAPE"],
        "rows": [shape.norms, shape.kinds, shape.endings, shape.shapes],
        "include_static_vectors": False,
    }
    encode = {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": shape.width,
        "depth": shape.depth,
        "window_size": 1,
        "maxout_pieces": 3,
    }
    tok2vec = {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}
    model = {"@architectures": "spacy.Tagger.v2", "tok2vec": tok2vec, "nO": None, "normalize": True}
    tagger = nlp.add_pipe("tagger", config={"model": model})
    words = tags(card.labels)
    sample = Example.from_dict(Doc(vocab, words=words), {"tags": words})
    tagger.initialize(lambda: [sample], nlp=nlp, labels=words)
    for layer in tagger.model.walk():
        layer.ops.use_blis = False  # numpy multiplies small matrices twice as fast
    return nlp


def save(nlp: "Language", card: ModelCard, vocabulary: Vocabulary, folder: Path) -> None:
    """Write weights (thinc's own bytes, no pickle), card and hashes of common words; no word is stored."""
    with atomic_dir(folder) as out:
        (out / WEIGHTS).write_bytes(nlp.get_pipe("tagger").model.to_bytes())
        vocabulary.save(out / WORDS)
        write_json(out / CARD, card)


class EmbeddedNer:
    """The shipped model, or another that `build` and `save` made.

    Args:
        folder: where it lies.
        language: whose tokenizer cuts texts into words (`en`, `de`, …).
    """

    def __init__(self, folder: Path = EMBEDDED, language: str = "en") -> None:
        self.card = ModelCard.model_validate(json.loads((folder / CARD).read_text(encoding="utf-8")))
        self.nlp = build(self.card, Vocabulary.load(folder / WORDS).kind, language)
        self._tagger = self.nlp.get_pipe("tagger")
        self._tagger.model.from_bytes((folder / WEIGHTS).read_bytes())
        self.types = self.card.labels

    @cached_property
    def _columns(self) -> dict[str, tuple[int, int]]:
        """Beginning and inside of each label among the tagger's outputs."""
        at = {tag: index for index, tag in enumerate(self._tagger.labels)}
        return {label: (at[f"B-{label}"], at[f"I-{label}"]) for label in self.card.labels}

    def find_many(self, texts: Sequence[str]) -> list[list[Span]]:
        """Spans of each text: sure ones with a score from 0.5, unsure ones below 0.4."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        found: list[list[Span]] = [[] for _ in texts]
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            docs = [self.nlp.make_doc(texts[index]) for index in batch]
            for index, doc, scores in zip(batch, docs, self._tagger.model.predict(docs), strict=True):
                found[index] = list(self._spans(doc, scores)) if len(doc) else []
        return found

    def entities(self, doc: Any) -> list[Any]:
        """The sure finds of one parsed text as spaCy entities, for a spaCy pipeline that holds this model."""
        scores = self._tagger.model.predict([doc])[0]
        spans = (s for s in self._spans(doc, scores) if s.score >= _SURE_SCORE) if len(doc) else ()
        return [doc.char_span(s.start, s.end, label=s.type, alignment_mode="expand") for s in spans]

    def _spans(self, doc: Any, scores: Any) -> Iterator[Span]:
        """Runs of words of one type with a sure one among them; words of other runs are unsure by themselves."""
        chances = 1 - scores[:, self._tagger.labels.index("O")]
        if chances.max() < self.card.unsure:
            return
        words = [self._word(doc[i], float(chances[i]), scores[i]) for i in range(len(doc))]
        start = 0
        for end in range(1, len(words) + 1):
            if end < len(words) and words[end].label == words[end - 1].label and not words[end].begins:
                continue
            run = words[start:end]
            if run[0].label and any(word.sure for word in run):
                yield from self._run(doc, run, start)
            elif run[0].label in _NAMES:
                yield from (_unsure(doc[start + i], word) for i, word in enumerate(run))
            start = end

    def _word(self, token: Any, chance: float, scores: Any) -> "_Word":
        """A word's likeliest type, if it can be of it at all."""
        if chance < self.card.unsure:
            return _Word("", False, False, chance)
        label = max(self._columns, key=lambda each: scores[self._columns[each][0]] + scores[self._columns[each][1]])
        if label == "PERSON" and any(char.isdigit() for char in token.text):
            return _Word("", False, False, chance)
        rare = label == "PERSON" and token.prefix_[0] not in "oc"
        sure = chance >= (self.card.sure_of_rare if rare else self.card.sure[label])
        begin, inside = self._columns[label]
        return _Word(label, sure and bool(scores[begin] > scores[inside]), sure, chance)

    def _run(self, doc: Any, run: "list[_Word]", start: int) -> Iterator[Span]:
        """One find from the first to the last word, if it is made of what its type is made of."""
        first, last = doc[start], doc[start + len(run) - 1]
        text = "".join(token.text for token in doc[start : start + len(run)])
        digit, letter = any(map(str.isdigit, text)), any(map(str.isalpha, text))
        if (digit or run[0].label not in _WITH_DIGITS) and (letter or run[0].label not in _WITH_LETTERS):
            chance = sum(word.chance for word in run) / len(run)
            yield Span(first.idx, last.idx + len(last), run[0].label, round(_SURE_SCORE + 0.4 * chance, 3))


class _Word(NamedTuple):
    """What a word is taken for: no label where it is nobody's."""

    label: str
    begins: bool
    sure: bool
    chance: float


def _unsure(token: Any, word: _Word) -> Span:
    return Span(token.idx, token.idx + len(token), word.label, round(0.39 * word.chance, 3))
