"""What the stages before a release leave behind, made by hand: real folders, small numbers."""

from pathlib import Path
from typing import Any

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer, make_example
from pocketloop.contracts.files import write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    CollectReport,
    DatasetRelease,
    DriftReport,
    LabelReport,
    ScrubReport,
    SelectReport,
    StageCount,
    ValidationReport,
)
from pocketloop.data.descriptors import NAMES, NUMBERS
from pocketloop.data.release import write_release

RECIPE = Recipe.model_validate(
    {
        "adapter": "a",
        "task": "intent",
        "base": "tiny",
        "catalogue": "c.json",
        "data": {"sources": [{"kind": "events", "skill": "s"}]},
    }
)
LABELS = ("music", "alarm", "weather")


def example(number: int, text: str = "say") -> Example:
    turns = [
        Message(role="user", content=f"{text} {number}"),
        Message(role="assistant", content=LABELS[number % len(LABELS)]),
    ]
    return make_example("intent", turns, source="events:s", group=f"g-{number // 3}", event_ids=[f"e{number}"])


def stage_folders(folder: Path, numbers: range, text: str = "say") -> dict[str, Any]:
    """`scrubbed`, `validated` and `selected` under `folder`, with one example an event."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths: dict[str, Any] = {name: folder / name for name in ("scrubbed", "validated", "selected")}
    write_jsonl(paths["scrubbed"] / "found.jsonl", [{"fingerprint": "f" * 32, "type": "PERSON", "count": 1}])
    (paths["scrubbed"] / "scrub.html").write_text("<!doctype html><title>scrubbed</title>")
    events = [{"event_id": f"e{n}", "ts": f"2026-11-{n % 28 + 1:02}T23:30:00Z"} for n in numbers]
    write_jsonl(paths["validated"] / "events-000000001-000000500.jsonl", events)
    columns: dict[str, list[Any]] = {name: [n % 50 for n in numbers] for name in NUMBERS}
    columns |= {name: [("en", "de", "none")[n % 3] for n in numbers] for name in NAMES}
    pq.write_table(pa.table(columns), paths["validated"] / "descriptors.parquet")
    examples = [example(n, text) for n in numbers]
    half = len(examples) // 2
    for part, rows in enumerate((examples[:half], examples[half:])):
        write_jsonl(paths["selected"] / "examples" / f"part-{part:05d}.jsonl", rows)
    wrong = Message(role="assistant", content="decline")
    given = {"task": "intent", "source": "events:s"}
    write_jsonl(
        paths["selected"] / "pairs.jsonl",
        (
            PreferencePair(
                pair_id=f"p{e.example_id}", group=e.group, event_ids=e.event_ids, prompt=e.prompt, chosen=e.answer,
                rejected=wrong, reason="correction", **given,
            )
            for e in examples[::10]
        ),
    )  # fmt: skip
    write_jsonl(
        paths["selected"] / "rated.jsonl",
        (
            RatedAnswer(
                rated_id=f"r{e.example_id}", group=e.group, event_ids=e.event_ids, messages=e.messages,
                desirable=True, **given,
            )
            for e in examples[::5]
        ),
    )  # fmt: skip
    left_out = {"stage": "label", "reason": "thumbs down", "event_id": "e999", "detail": "", "where": ""}
    write_jsonl(paths["selected"] / "quarantine.jsonl", [left_out])
    return paths


def stage_reports(size: int, reference: str | None = None, **changes: Any) -> dict[str, Any]:
    """Reports that account for `size` examples; one record was left out by the label stage."""
    whole, labelled = (
        StageCount(stage="", entered=size + 1, kept=size + 1),
        StageCount(stage="", entered=size, kept=size),
    )
    reports: dict[str, Any] = {
        "collect": CollectReport(
            count=whole.model_copy(update={"stage": "collect"}), events=size + 1, examples=0,
            by_source={"events:s": size + 1}, policies=["2026-01"], watermark=size + 1,
        ),
        "scrub": ScrubReport(
            count=whole.model_copy(update={"stage": "scrub"}), found={"PERSON": 3, "EMAIL_ADDRESS": 1},
            reused_shards=0, scrubbed_shards=1, caught=0, scrubber="x" * 64,
        ),
        "validation": ValidationReport(
            count=whole.model_copy(update={"stage": "validate"}), success=True, expectations={"ids are unique": True}
        ),
        "drift": DriftReport(reference=reference, rows=size, share=0.0, columns={"turns": 0.01} if reference else {}),
        "label": LabelReport(
            count=StageCount(stage="label", entered=size + 1, kept=size, left_out={"thumbs down": 1}),
            judge="verifier", corrected=0,
        ),
        "select": SelectReport(
            count=labelled.model_copy(update={"stage": "select"}), by_label=dict.fromkeys(LABELS, size // 3)
        ),
    }  # fmt: skip
    return reports | changes


def write_sample(folder: Path, numbers: range, adapter: str = "a", text: str = "say", **changes: Any) -> DatasetRelease:
    """A release of the examples `numbers`, in the home that POCKETLOOP_HOME names."""
    recipe = RECIPE.model_copy(update={"adapter": adapter})
    return write_release(
        Home(), recipe, **stage_folders(folder, numbers, text), **stage_reports(len(numbers), **changes)
    )
