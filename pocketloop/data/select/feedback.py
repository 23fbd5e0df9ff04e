"""Preference pairs and rated answers: what stands in an evaluation set, twice, or is a guarded device's stays out."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketloop.contracts.files import atomic_file, canonical_json
from pocketloop.data.select.contamination import EvaluationIndex
from pocketloop.data.select.decide import EXACT
from pocketloop.data.select.keys import label, number


def select_feedback(
    path: Path, out: Path, evaluation: EvaluationIndex | None, suspects: set[tuple[int, str]]
) -> dict[str, int]:
    """Copy the rows of `path` that may be learnt from to `out`; returns how many were not, by reason.

    Read twice, and only hashes are held. Of rows that say the same the one with the smallest hash of its id stays.
    """
    first: dict[int, int] = {}
    for _, row in _rows(path):
        said, rank = number(_says(row)), number(_identity(row))
        first[said] = min(rank, first.get(said, rank))
    left_out: Counter[str] = Counter()
    with atomic_file(out) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for line, row in _rows(path):
            prompt = row["prompt"] if "prompt" in row else row["messages"][:-1]
            answer = row["chosen"] if "chosen" in row else row["messages"][-1]
            stands_in = evaluation and evaluation.find(prompt)
            if first.get(number(_says(row))) != number(_identity(row)):
                left_out[EXACT] += 1
            elif stands_in:
                left_out[f"stands in evaluation set {stands_in}"] += 1
            elif row["event_ids"] and (number(row["group"]), label(row["task"], answer)) in suspects:
                left_out["guarded device"] += 1
            else:
                first.pop(number(_says(row)))
                file.write(line)
    return dict(sorted(left_out.items()))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.is_file():
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield line, json.loads(line)


def _says(row: dict[str, Any]) -> str:
    """Everything but who said it and where it comes from."""
    known = ("task", "prompt", "chosen", "rejected", "messages", "desirable")
    return canonical_json([row.get(key) for key in known])


def _identity(row: dict[str, Any]) -> str:
    return canonical_json([row.get("pair_id"), row.get("rated_id"), row["group"], row["event_ids"]])
