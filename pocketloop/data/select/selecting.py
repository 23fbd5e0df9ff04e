"""Select: which labelled examples are worth learning from, and safe to learn from."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pocketloop.blocks.run import run_blocks
from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message
from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.kept import kept_in
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import SelectReport, StageCount
from pocketloop.data.select.blocks import NoteKeys, ReadParts, WriteChosen
from pocketloop.data.select.contamination import EvaluationIndex
from pocketloop.data.select.decide import KEPT, Decisions, decide
from pocketloop.data.select.feedback import select_feedback
from pocketloop.data.select.table import Table

_SET = "stands in evaluation set "


def select(
    labelled: Path,
    recipe: Recipe,
    out: Path,
    *,
    evaluation: Mapping[str, Iterable[list[Message]]],
    previous: Path | None,
    compute: ComputeConfig,
    work: Path,
    kept: Path | None = None,
) -> SelectReport:
    """Leave out what is redundant, contaminated, too much of one kind, or looks poisoned; `recipe.select` says how.

    Blocks note what every example is compared by, part by part; the decisions are made here over those notes; blocks
    write what stays. Which examples stay depends on the examples alone, not on their order, on how they are cut into
    parts or on who worked on them.

    Args:
        labelled: `examples/part-*.jsonl`, `pairs.jsonl`, `rated.jsonl` and `quarantine.jsonl`.
        recipe: its section `select`.
        out: is given the same files; `quarantine.jsonl` holds what was left out here and before.
        evaluation: the prompts of every evaluation set, by its name.
        previous: folder of the release before this one, to which flips are told.
        compute: where the blocks run.
        work: folder for what lies between the passes; the same one again goes on after a kill. It holds scrubbed
            text: the caller removes it.
        kept: cache of what was noted of each example.

    Raises:
        DataError: nothing is left, or a guard against poisoning spoke and `select.on_poison` is `stop`.
    """
    config = recipe.select
    parts = sorted(path.name for path in (labelled / "examples").glob("part-*.jsonl") if path.stat().st_size)
    index = EvaluationIndex(evaluation, config.decontaminate) if config.decontaminate is not None else None
    read = ReadParts(labelled / "examples", parts)
    tasks = min(len(parts), 4 * compute.workers)
    for name in ("keys", "decisions", "kept", "reasons"):
        (work / name).mkdir(parents=True, exist_ok=True)
    with kept_in(kept) as cache:
        note = NoteKeys(work / "keys", index, config.near_duplicates is not None, cache, recipe.adapter)
        run_blocks([read, note], tasks, compute, work / "noting")
    table = Table(work / "keys", parts)
    found = decide(table, config, previous)
    _save(found, parts, table.sizes, work / "decisions")
    write = WriteChosen(work / "decisions", found.reasons, work / "kept", work / "reasons")
    run_blocks([read, write], tasks, compute, work / "writing")
    counts = found.counts()
    stay = counts.pop(KEPT)
    left_out = {reason: count for reason, count in sorted(counts.items()) if count}
    if not stay:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"select left nothing of {table.rows} examples: {why or 'there were none'}; look at `select`")
    _gather(parts, labelled, work, out)
    feedback: Counter[str] = Counter()
    for name in ("pairs.jsonl", "rated.jsonl"):
        feedback.update(select_feedback(labelled / name, out / name, index, found.suspects))
    alive = np.bincount(table.label[found.alive], minlength=len(table.labels)).tolist()
    return SelectReport(
        count=StageCount(stage="select", entered=table.rows, kept=stay, left_out=left_out),
        contaminated={
            reason.removeprefix(_SET): count for reason, count in left_out.items() if reason.startswith(_SET)
        },
        guarded=found.guarded,
        by_label={name: count for name, count in zip(table.labels, alive, strict=True) if count},
        feedback_left_out=dict(sorted(feedback.items())),
    )


def _save(found: Decisions, parts: list[str], sizes: list[int], folder: Path) -> None:
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        with atomic_file(folder / f"{part}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, found.code[start : start + size])
        start += size


def _gather(parts: list[str], labelled: Path, work: Path, out: Path) -> None:
    """Put the parts that hold anything and one quarantine file into `out`."""
    for part in parts:
        if (work / "kept" / part).is_file():
            with atomic_file(out / "examples" / part) as temporary:
                shutil.copyfile(work / "kept" / part, temporary)
    with atomic_file(out / "quarantine.jsonl") as temporary, open(temporary, "wb") as file:
        for path in (labelled / "quarantine.jsonl", *(work / "reasons" / part for part in parts)):
            if path.is_file():
                with open(path, "rb") as earlier:
                    shutil.copyfileobj(earlier, file)
