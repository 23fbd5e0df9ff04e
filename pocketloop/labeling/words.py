"""What an answer is judged by beside all others: its label, and counts of the words and letters that were said."""

from pathlib import Path
from typing import TYPE_CHECKING

from pocketloop.contracts.events import Message
from pocketloop.privacy.placeholders import PLACEHOLDER

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

COLUMNS = 2**18
"""Columns for words and pairs of words, and as many again for runs of letters: few of either share a column."""


def words_of(prompt: list[Message]) -> str:
    """What the person said."""
    return "\n".join(message.content for message in prompt if message.role == "user")


def label_of(answer: Message) -> str:
    """The label, or the names of the functions that are called."""
    return " ".join(sorted(call.name for call in answer.tool_calls)) or answer.content.strip()


def counts_of(texts: list[str]) -> "csr_matrix":
    """Counts of one to two words and of two to four letters (people mistype), shape (texts, 2 * COLUMNS), float32.

    A column belongs to the hash of a word: what a text is counted as does not depend on any other text.
    """
    import numpy as np
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    if not texts:
        return csr_matrix((0, 2 * COLUMNS), dtype=np.float32)
    plain = {"n_features": COLUMNS, "norm": None, "alternate_sign": False, "dtype": np.float32}
    shown = [PLACEHOLDER.sub(r" \1 ", text) for text in texts]
    words = HashingVectorizer(ngram_range=(1, 2), **plain).transform(shown)
    letters = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), **plain).transform(shown)
    return hstack([words, letters], format="csr")


def write_counts(path: Path, counts: "csr_matrix") -> None:
    """Write counts as they are."""
    from scipy.sparse import save_npz

    save_npz(path, counts, compressed=False)


def read_counts(path: Path) -> "csr_matrix":
    """Read what `write_counts` wrote."""
    from scipy.sparse import load_npz

    return load_npz(path)
