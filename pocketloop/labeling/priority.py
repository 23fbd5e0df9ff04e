"""Which answers are worth a judge's time first.

Where the phone itself was in doubt, or its user asked again, answers are most likely wrong and most is learned.
"""

from array import array
from collections.abc import Iterator

from pocketloop.contracts.files import sha256_text
from pocketloop.labeling.extract import Answered, Place

ASKED_AGAIN_S = 120.0
_ALIKE = 0.5

_EDGE, _RATED, _REST = 0, 1, 2


class Queue:
    """Places of answers in the order in which they are judged, in about 50 bytes an answer.

    First edge cases on which nobody has spoken: the phone was in doubt, or its device asks for something alike within
    `ASKED_AGAIN_S`. Then up to `enough` of those on which people have spoken, edge cases first: they tell how far
    judge and people agree, and need no label. Then the rest. Among equals the hash of the event's id decides.
    """

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._shards, self._offsets = array("L"), array("Q")
        self._groups, self._moments, self._words = array("Q"), array("d"), array("Q")
        self._hashes = array("Q")
        self._doubts, self._rated = array("b"), array("b")

    def add(self, candidate: Answered, place: Place, rated: bool) -> None:
        """Take an answer in; `rated` tells whether people have spoken on it."""
        self._shards.append(place.shard)
        self._offsets.append(place.offset)
        self._groups.append(_number(candidate.group))
        self._moments.append(candidate.moment)
        self._words.append(candidate.words)
        self._hashes.append(_number(candidate.event_id))
        self._doubts.append(candidate.in_doubt)
        self._rated.append(rated)

    def __iter__(self) -> Iterator[Place]:
        import numpy as np

        if not self._shards:
            return
        rated = np.frombuffer(self._rated, dtype=np.int8).astype(bool)
        edge = np.frombuffer(self._doubts, dtype=np.int8).astype(bool) | self._asked_again()
        rank = np.where(rated, _RATED, np.where(edge, _EDGE, _REST))
        order = np.lexsort((np.frombuffer(self._hashes, dtype=np.uint64), ~edge, rank))
        spoken = np.cumsum(rated[order])
        for at in order[~rated[order] | (spoken <= self._enough)].tolist():
            yield Place(self._shards[at], self._offsets[at])

    def _asked_again(self) -> "object":
        """Whether the same device soon asked for something alike: the earlier answer did not help."""
        import numpy as np

        groups = np.frombuffer(self._groups, dtype=np.uint64)
        moments = np.frombuffer(self._moments, dtype=np.float64)
        words = np.frombuffer(self._words, dtype=np.uint64)
        order = np.lexsort((moments, groups))
        earlier, later = order[:-1], order[1:]
        soon = (groups[earlier] == groups[later]) & (moments[later] - moments[earlier] <= ASKED_AGAIN_S)
        shared = _bits(words[earlier] & words[later])
        fewer = np.minimum(_bits(words[earlier]), _bits(words[later]))
        again = np.zeros(len(groups), dtype=bool)
        again[earlier[soon & (shared >= _ALIKE * np.maximum(fewer, 1))]] = True
        return again


def _bits(masks: "object") -> "object":
    import numpy as np

    return np.bitwise_count(masks)


def _number(text: str) -> int:
    return int(sha256_text(text)[:16], 16)
