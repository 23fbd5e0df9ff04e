"""What was noted of a part's examples the last time, line by line.

A part is what labelling left of ten thousand records: when its judge changes its mind on a few, the other lines stay
as they were, and so do their keys.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pocketloop.contracts.kept import is_whole, renew
from pocketloop.data.select.keys import number

_KEYS = "keys.parquet"


def noted(entry: Path, lines: list[str], note: Callable[[list[str]], pa.Table]) -> pa.Table:
    """What `note` says of `lines`, row for row; it is asked about those alone that the cache's entry does not hold.

    `note` gives a table with a column `group` (the device's pseudonym), which says whose records an entry is made of.
    """
    wanted = np.array([number(line) for line in lines], dtype=np.uint64)
    known = pq.read_table(entry / _KEYS) if is_whole(entry) else None
    held = known["line"].to_numpy() if known is not None else np.empty(0, dtype=np.uint64)
    order = np.argsort(held, kind="stable")
    place = np.searchsorted(held[order], wanted)
    found = np.zeros(len(wanted), dtype=bool)
    inside = place < len(held)
    found[inside] = held[order[place[inside]]] == wanted[inside]
    fresh = np.flatnonzero(~found)
    rows = np.empty(len(wanted), dtype=np.int64)
    rows[found] = order[place[found]]
    rows[fresh] = len(held) + np.arange(len(fresh))
    new = note([lines[at] for at in fresh]).append_column("line", pa.array(wanted[fresh]))
    table = pa.concat_tables([known, new] if known is not None else [new]).take(pa.array(rows))
    if len(fresh) or len(held) != len(lines):
        renew(entry, lambda folder: _write(folder, table))
    return table.drop_columns(["group", "line"])


def _write(folder: Path, table: pa.Table) -> Any:
    pq.write_table(table, folder / _KEYS)
    return table["group"].unique().to_pylist()
