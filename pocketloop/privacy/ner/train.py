"""Train the embedded recognizer on generated sentences: minutes of one core."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pocketloop.privacy.ner.corpus import LABELS, Row, common_words
from pocketloop.privacy.ner.model import ModelCard, Shape, Vocabulary, build, save
from pocketloop.privacy.spans import Span

SENTENCES = 450_000
_BATCH = 128


def train_ner(
    corpus: Iterable[Row], out: Path, *, size: int = SENTENCES, seed: int = 7, shape: Shape | None = None
) -> ModelCard:
    """Train on the first `size` sentences, each seen once, and write the model to `out`.

    In training the gazetteer knows half of the listed names, so that the model learns both what a listed name says and
    to do without; likewise for common words. The same seed, libraries and machine give the same bytes.
    """
    import numpy
    import thinc.api
    from spacy.training import Example

    card = ModelCard(labels=list(LABELS), shape=shape or Shape(), language="en", seed=seed, rows=size)
    random.seed(seed)
    numpy.random.seed(seed)
    thinc.api.fix_random_seed(seed)
    vocabulary = Vocabulary.of(common_words())
    nlp = build(card, _half_known(vocabulary))
    optimizer = thinc.api.Adam(0.002, L2=0.0, grad_clip=1.0)
    averages: dict[Any, Any] = {}
    optimizer.averages = averages
    tagger = nlp.get_pipe("tagger")
    steps = size // _BATCH
    stream = iter(corpus)
    for step in range(steps):
        optimizer.learn_rate = 0.002 * min(1.0, (step + 1) / 100) * (1 - 0.95 * step / steps)
        examples = []
        for row in islice(stream, _BATCH):
            doc = nlp.make_doc(row.text)
            examples.append(Example.from_dict(doc, {"tags": list(tags_of(doc, row))}))
        tagger.update(examples, sgd=optimizer, drop=0.15)
    with tagger.model.use_params(averages):
        save(nlp, card, vocabulary, out)
    return card


def tags_of(doc: Any, row: Row) -> Iterator[str]:
    """The tag of each word: it belongs to a span that it shares a character with."""
    before: Span | None = None
    spans = iter(row.spans)
    span = next(spans, None)
    for token in doc:
        while span and span.end <= token.idx:
            span = next(spans, None)
        if span and token.idx < span.end and span.start < token.idx + len(token) and not token.is_space:
            yield f"{'I' if before is span else 'B'}-{span.type}"
            before = span
        else:
            yield "O"


def _half_known(vocabulary: Vocabulary) -> Callable[[str], str]:
    """Kinds of words as if half of the listed names and one in eight common words were unknown."""

    def kind(word: str) -> str:
        known = vocabulary.kind(word)
        chance = hashlib.sha256(word.lower().encode()).digest()[0]
        if known.startswith("c") and chance < 32:
            known = known[1:]
        return known[:-1] + "0" if chance < 128 else known

    return kind
