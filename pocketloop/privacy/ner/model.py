"""The embedded recognizer: a small spaCy tagger that gives each word the chance of being personal data, by type.

Its words are described by their form, their ending, their shape, and by whether they are everyday words or listed
names. A chance for each word, rather than a choice for the whole sentence, lets the scrubber tell sure finds from
unsure ones, and lets many messages be read in one multiplication.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.files import atomic_dir, write_json
from pocketloop.privacy.names import gazetteer, ordinary_words
from pocketloop.privacy.spans import Span

if TYPE_CHECKING:
    from spacy.language import Language

EMBEDDED = Path(__file__).parent / "model"
WEIGHTS, CARD = "weights.bin", "model.json"
_BATCH = 256


class Shape(BaseModel):
    """Size of the network: columns of the word tables, their rows, and layers of convolution over three words each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = 64
    depth: int = 4
    norms: int = 8000
    kinds: int = 32
    endings: int = 2500
    shapes: int = 500


class ModelCard(BaseModel):
    """What the weights belong to, and the chances from which a word is (`sure`) or may be (`unsure`) personal data."""

    model_config = ConfigDict(extra="forbid")

    labels: list[str]
    shape: Shape
    language: str
    seed: int
    rows: int
    sure: float = 0.5
    unsure: float = 0.25


def word_kind(word: str) -> str:
    """`o` for an everyday word, and the digit of the gazetteer's bits for a name."""
    low = word.lower()
    return ("o" if low in ordinary_words() else "") + str(gazetteer().get(low, 0))


def tags(labels: Sequence[str]) -> list[str]:
    """`O`, and beginning and inside of each label."""
    return ["O", *(f"{side}-{label}" for label in labels for side in "BI")]


def build(card: ModelCard, kind: Callable[[str], str] = word_kind, language: str | None = None) -> "Language":
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
    return nlp


def save(nlp: "Language", card: ModelCard, folder: Path) -> None:
    """Write weights (thinc's own bytes, no pickle) and card; words are hashed, so no vocabulary is stored."""
    with atomic_dir(folder) as out:
        (out / WEIGHTS).write_bytes(nlp.get_pipe("tagger").model.to_bytes())
        write_json(out / CARD, card)


class EmbeddedNer:
    """The shipped model, or another that `build` and `save` made.

    Args:
        folder: where it lies.
        language: whose tokenizer cuts texts into words (`en`, `de`, …).
    """

    def __init__(self, folder: Path = EMBEDDED, language: str = "en") -> None:
        self.card = ModelCard.model_validate(json.loads((folder / CARD).read_text(encoding="utf-8")))
        self.nlp = build(self.card, language=language)
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

    def _spans(self, doc: Any, scores: Any) -> Iterator[Span]:
        """Runs of words that are rather personal data than not, and single words that may be."""
        chances = 1 - scores[:, self._tagger.labels.index("O")]
        if chances.max() < self.card.unsure:
            return
        run: list[int] = []
        label = ""
        for index in range(len(doc)):
            chance = float(chances[index])
            kind, begins = self._kind(scores[index]) if chance >= self.card.unsure else ("", False)
            sure = chance >= self.card.sure
            if run and (not sure or begins or kind != label):
                yield self._span(doc, run, label, chances)
                run = []
            if sure:
                run.append(index)
                label = kind
            elif kind:
                token = doc[index]
                yield Span(token.idx, token.idx + len(token), kind, round(0.4 * chance / self.card.sure - 1e-3, 3))
        if run:
            yield self._span(doc, run, label, chances)

    def _kind(self, scores: Any) -> tuple[str, bool]:
        best = max(self._columns, key=lambda label: scores[self._columns[label][0]] + scores[self._columns[label][1]])
        begin, inside = self._columns[best]
        return best, bool(scores[begin] > scores[inside])

    def _span(self, doc: Any, run: list[int], label: str, chances: Any) -> Span:
        first, last = doc[run[0]], doc[run[-1]]
        score = 0.5 + 0.4 * (float(chances[run].mean()) - self.card.sure) / (1 - self.card.sure)
        return Span(first.idx, last.idx + len(last), label, round(score, 3))
