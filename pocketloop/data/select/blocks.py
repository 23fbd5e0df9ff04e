"""datatrove blocks: read parts of examples, note what each is compared by, and write those that were chosen.

Parts are the files `part-*.jsonl`. A part is one task's alone, and what is written of it depends on the part only: so
results do not change with the number of tasks.
"""

import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.files import atomic_file, canonical_json, sha256_text
from pocketloop.contracts.kept import entry_name
from pocketloop.data.select import keys
from pocketloop.data.select.contamination import EvaluationIndex
from pocketloop.data.select.near import BANDS, PERMUTATIONS, bands, signatures
from pocketloop.data.select.noted import noted

_BATCH = 5_000

SCHEMA = pa.schema(
    [
        ("precedence", pa.uint64()),
        ("device", pa.uint64()),
        ("conversation", pa.uint64()),
        ("twin", pa.uint64()),
        ("template", pa.uint64()),
        ("label", pa.string()),
        ("contaminated", pa.string()),
        ("document", pa.string()),
        ("signature", pa.binary(PERMUTATIONS)),
        ("bands", pa.binary(BANDS * 8)),
    ]
)
"""One row an example. `device` is 0 for an example that no event stands behind."""


class ReadParts(PipelineStep):
    """Reads the lines of each part that falls to a task, in order."""

    type = "reader"
    name = "parts"

    def __init__(self, folder: Path, parts: list[str]) -> None:
        super().__init__()
        self.folder = folder
        self.parts = parts

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield one document a line: its text is the line, its id the number of the row in its part."""
        for part in self.parts[rank::world_size]:
            with open(self.folder / part, encoding="utf-8") as file:
                for row, line in enumerate(file):
                    yield Document(text=line, id=str(row), metadata={"part": part})


class NoteKeys(PipelineStep):
    """Writes `PART.parquet` for each part: what its examples are compared by (`SCHEMA`)."""

    type = "keys"
    name = "keys"

    def __init__(self, out: Path, evaluation: EvaluationIndex | None, near: bool, cache: Path, adapter: str) -> None:
        super().__init__()
        self.out = out
        self.evaluation = evaluation
        self.near = near
        self.cache = cache
        self.depends = [adapter, evaluation and evaluation.digest, near, version("rensa")]

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Consume the documents; nothing is passed on."""
        for part, documents in _by_part(data):
            entry = self.cache / entry_name("select", sha256_text(part), *self.depends)
            table = noted(entry, [document.text for document in documents], self._note)
            with atomic_file(self.out / f"{part}.parquet") as temporary:
                pq.write_table(table, temporary)
        yield from ()

    def _note(self, lines: list[str]) -> pa.Table:
        batches = [lines[start : start + _BATCH] for start in range(0, len(lines), _BATCH)]
        return pa.concat_tables([self._table([json.loads(line) for line in batch]) for batch in batches or [[]]])

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        documents = [keys.document(row) for row in rows]
        outcomes = [keys.outcome(row["task"], row["messages"][-1]) for row in rows]
        signed = signatures(documents if self.near else ["" for _ in documents])
        alike = np.array([keys.number(outcome) for outcome in outcomes], dtype=np.uint64)
        columns: dict[str, Any] = {
            "precedence": [keys.number(f"{row['example_id']} {' '.join(row['event_ids'])}") for row in rows],
            "device": [keys.number(row["group"]) if row["event_ids"] else 0 for row in rows],
            "conversation": [keys.number(keys.conversation(row)) for row in rows],
            "twin": [keys.number(f"{outcome}\n{text}") for outcome, text in zip(outcomes, documents, strict=True)],
            "template": [keys.number(keys.phrasing(row)) for row in rows],
            "label": [keys.label(row["task"], row["messages"][-1]) for row in rows],
            "contaminated": [self.evaluation and self.evaluation.find(row["messages"][:-1]) for row in rows],
            "document": documents,
            "signature": [row.tobytes() for row in signed.astype(np.uint8)],
            "bands": [row.tobytes() for row in bands(signed, alike)],
        }
        table = pa.table(columns, schema=SCHEMA)
        return table.append_column("group", pa.array([row["group"] for row in rows], pa.string()))


class WriteChosen(PipelineStep):
    """Writes the chosen lines of each part as they were read, and why the others were left out, but not what they say.

    Decisions are `PART.npy`, one byte a row: 0 keeps it, another number is the place of the reason in `reasons`.
    """

    type = "writer"
    name = "chosen"

    def __init__(self, decisions: Path, reasons: list[str], kept: Path, left_out: Path) -> None:
        super().__init__()
        self.decisions = decisions
        self.reasons = reasons
        self.kept = kept
        self.left_out = left_out

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Consume the documents; nothing is passed on. A file that would be empty is not written."""
        for part, documents in _by_part(data):
            kept, left_out = list[str](), list[str]()
            for document, decision in zip(documents, np.load(self.decisions / f"{part}.npy").tolist(), strict=True):
                if decision == 0:
                    kept.append(document.text)
                else:
                    left_out.append(_left_out(json.loads(document.text), self.reasons[decision]))
            for folder, lines in ((self.kept, kept), (self.left_out, left_out)):
                if lines:
                    with atomic_file(folder / part) as temporary, open(temporary, "w", encoding="utf-8") as file:
                        file.writelines(lines)
        yield from ()


def _left_out(row: dict[str, Any], reason: str) -> str:
    left_out = Quarantined(
        stage="select",
        reason=reason,
        detail=f"example {row['example_id']}",
        event_id=row["event_ids"][0] if row["event_ids"] else None,
    )
    return canonical_json(left_out.model_dump(mode="json")) + "\n"


def _by_part(data: Iterable[Document]) -> Iterator[tuple[str, Iterator[Document]]]:
    yield from groupby(data, key=lambda document: document.metadata["part"])
