"""Near duplicates: MinHash signatures propose pairs, the exact Jaccard similarity of their shingles decides.

The probability that one permutation agrees on two sets is their Jaccard similarity J (Broder, "On the resemblance and
containment of documents", 1997). With b bands of r rows a pair is proposed with probability 1 - (1 - J^r)^b.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from pocketloop.data.select.keys import shingles

PERMUTATIONS = 128
BANDS = 16
"""With 8 rows a band, a pair of similarity 0.9 is proposed with probability 0.9998, one of 0.5 with 0.06."""

_SEED = 20
_NEIGHBOURS = 64
"""Most neighbours that one document is compared with in one band: keeps the work in proportion to the documents."""
_DEVIATIONS = 3.4
"""How far below the bound the signatures of a pair may agree that meets it, in standard deviations: one in 3,000."""
_CHUNK = 20_000
_MIX = np.uint64(0x9E3779B97F4A7C15)

Numbers: TypeAlias = npt.NDArray[np.uint64]
Rows: TypeAlias = npt.NDArray[np.int64]


def signatures(documents: list[str]) -> npt.NDArray[np.uint32]:
    """MinHash signatures, one row of `PERMUTATIONS` numbers a document."""
    found = RMinHash.digests_from_token_sets([shingles(text) for text in documents], PERMUTATIONS, _SEED)
    return np.array(found, dtype=np.uint32).reshape(len(documents), PERMUTATIONS)


def bands(signed: npt.NDArray[np.uint32], alike: Numbers) -> Numbers:
    """One number a band and document; equal ones propose a pair. Only documents equal in `alike` are ever paired."""
    rows = signed.astype(np.uint64).reshape(len(signed), BANDS, PERMUTATIONS // BANDS)
    mixed = np.repeat(alike[:, None], BANDS, axis=1)
    for at in range(rows.shape[2]):
        mixed = (mixed ^ rows[:, :, at]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    return mixed


def near_duplicates(texts: list[str], bound: float) -> set[int]:
    """Places of the texts that are near duplicates of one before them; all in memory, where there is no table."""
    signed = signatures(texts)
    hashes = bands(signed, np.zeros(len(texts), dtype=np.uint64))
    rows = np.arange(len(texts))
    found = redundant(
        rows,
        rows,
        lambda band: hashes[:, band],
        signed.astype(np.uint8),
        lambda wanted: {int(row): texts[row] for row in wanted},
        bound,
    )
    return set(found.tolist())


def redundant(
    candidates: Rows,
    position: Rows,
    band: Callable[[int], Numbers],
    signed: npt.NDArray[np.uint8],
    documents: Callable[[Rows], dict[int, str]],
    bound: float,
) -> Rows:
    """Which of `candidates` are near duplicates of one that comes before them and stays.

    Args:
        candidates: rows that may be dropped, and that may be what others are dropped for.
        position: of every row; the earlier one of a pair stays.
        band: band hashes of all rows, by the band's number.
        signed: the signatures' low bytes, of all rows.
        documents: the texts of some rows.
        bound: Jaccard similarity from which two documents are one.
    """
    pairs = _proposed(candidates, position, band, signed, bound)
    texts = documents(_distinct(pairs.ravel()))
    dropped: set[int] = set()
    similarity = _Jaccard(texts)
    order = np.lexsort((position[pairs[:, 1]], position[pairs[:, 0]]))
    for start in range(0, len(order), _CHUNK):
        for later, earlier in pairs[order[start : start + _CHUNK]].tolist():
            if later not in dropped and earlier not in dropped and similarity(earlier, later) >= bound:
                dropped.add(later)
    return np.array(sorted(dropped), dtype=np.int64)


def _proposed(
    candidates: Rows,
    position: Rows,
    band: Callable[[int], Numbers],
    signed: npt.NDArray[np.uint8],
    bound: float,
) -> npt.NDArray[np.int64]:
    """Pairs (later row, earlier row) that share a band and whose signatures agree well enough, each once."""
    total = np.uint64(len(position))
    deviation = (bound * (1 - bound) / PERMUTATIONS) ** 0.5
    enough = (bound - _DEVIATIONS * deviation) * PERMUTATIONS
    found = np.empty(0, dtype=np.uint64)
    following = band(0)[candidates]
    for number in range(BANDS):
        here, following = following, band((number + 1) % BANDS)[candidates]
        # In a crowded band those that share the next one as well are compared first.
        order = np.lexsort((position[candidates], following, here))
        fresh = [found]
        for left, right in _neighbours(here[order]):
            a, b = candidates[order[left]], candidates[order[right]]
            agree = np.count_nonzero(signed[a] == signed[b], axis=1) >= enough
            a, b = a[agree], b[agree]
            later = np.where(position[a] > position[b], a, b).astype(np.uint64)
            fresh.append(later * total + ((a + b).astype(np.uint64) - later))
        found = _distinct(np.concatenate(fresh))
    return np.stack([found // total, found % total], axis=1).astype(np.int64)


def _neighbours(values: Numbers) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of places of equal numbers in a sorted array, at most `_NEIGHBOURS` apart, in chunks."""
    left = np.arange(len(values))
    for distance in range(1, _NEIGHBOURS + 1):
        left = left[left + distance < len(values)]
        left = left[values[left] == values[left + distance]]
        if not len(left):
            return
        for start in range(0, len(left), _CHUNK):
            part = left[start : start + _CHUNK]
            yield part, part + distance


def _distinct(values: Any) -> Any:
    """Each value once, ascending: numpy's own `unique` hashes, and takes ten times as long for numbers like these."""
    ranked = np.sort(values)
    return ranked[np.concatenate([[True], ranked[1:] != ranked[:-1]])] if len(ranked) else ranked


class _Jaccard:
    """The similarity of two rows' shingles; pairs come sorted by their later row, whose shingles are kept."""

    def __init__(self, texts: dict[int, str]) -> None:
        self._texts = texts
        self._later = -1
        self._shingles: set[str] = set()

    def __call__(self, earlier: int, later: int) -> float:
        if later != self._later:
            self._later, self._shingles = later, shingles(self._texts[later])
        other = shingles(self._texts[earlier])
        return len(self._shingles & other) / len(self._shingles | other)
