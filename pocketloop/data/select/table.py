"""The keys of all examples as columns: about 60 bytes an example in memory, the wide columns only while needed."""

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pocketloop.data.select.near import BANDS, PERMUTATIONS, Numbers, Rows

Mask: TypeAlias = npt.NDArray[np.bool_]


class Table:
    """What `NoteKeys` wrote about the parts `names`, row for row."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._paths = [folder / f"{name}.parquet" for name in names]
        self.sizes = [pq.read_metadata(path).num_rows for path in self._paths]
        self.rows = sum(self.sizes)
        self.precedence = self._numbers("precedence")
        self.device = self._numbers("device")
        self.conversation = self._numbers("conversation")
        self.twin = self._numbers("twin")
        self.template = self._numbers("template")
        self.labels, self.label = self._names("label")
        self.sets, self.contaminated = self._names("contaminated")
        # People's own examples first, then by a hash: the choice does not follow the order of files or of arrival.
        order = np.lexsort((self.precedence, self.device != 0))
        self.position: Rows = np.empty(self.rows, dtype=np.int64)
        self.position[order] = np.arange(self.rows)

    def signed(self) -> npt.NDArray[np.uint8]:
        """The signatures' low bytes, shape (rows, PERMUTATIONS)."""
        return self._wide("signature", PERMUTATIONS)

    def bands(self) -> Numbers:
        """Band hashes, shape (rows, BANDS)."""
        return self._wide("bands", BANDS * 8).view(np.uint64)

    def documents(self, wanted: Rows) -> dict[int, str]:
        """The documents of some rows, given in ascending order."""
        found: dict[int, str] = {}
        start = 0
        for path, size in zip(self._paths, self.sizes, strict=True):
            here = wanted[(wanted >= start) & (wanted < start + size)]
            if len(here):
                texts = pq.read_table(path, columns=["document"]).column(0).take(pa.array(here - start))
                found.update(zip(here.tolist(), texts.to_pylist(), strict=True))
            start += size
        return found

    def _column(self, name: str) -> pa.ChunkedArray:
        chunks = [chunk for path in self._paths for chunk in pq.read_table(path, columns=[name]).column(0).chunks]
        return pa.chunked_array(chunks, type=None if chunks else pa.null())

    def _numbers(self, name: str) -> Numbers:
        return np.asarray(self._column(name).to_numpy(), dtype=np.uint64)

    def _names(self, name: str) -> tuple[list[str], npt.NDArray[np.int32]]:
        """The names that occur, sorted, and each row's place among them (-1: none)."""
        column = self._column(name).cast(pa.string())
        names = sorted(pc.unique(column).drop_null().to_pylist())
        places = pc.index_in(column, value_set=pa.array(names, type=pa.string()))
        return names, pc.fill_null(places, -1).to_numpy().astype(np.int32)

    def _wide(self, name: str, width: int) -> npt.NDArray[np.uint8]:
        wide = np.empty((self.rows, width), dtype=np.uint8)
        start = 0
        for path in self._paths:
            for chunk in pq.read_table(path, columns=[name]).column(0).chunks:
                buffer = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)
                here = buffer.reshape(-1, width)[chunk.offset : chunk.offset + len(chunk)]
                wide[start : start + len(chunk)] = here
                start += len(chunk)
        return wide


def beyond(keys: Numbers, order: Numbers | Rows, most: int) -> Mask:
    """Rows that are not among the first `most` of their key, in the order of `order`."""
    sequence = np.lexsort((order, keys))
    ranked = keys[sequence]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(ranked) else np.empty(0, int)
    within = np.arange(len(ranked)) - np.repeat(starts, np.diff(np.append(starts, len(ranked))))
    mask = np.zeros(len(keys), dtype=bool)
    mask[sequence] = within >= most
    return mask
