"""Labelled folders for the tests of selection."""

import random
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.events import Message, Quarantined, ToolCall
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer, make_example
from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import SelectReport
from pocketloop.data.select.selecting import select

HERE = ComputeConfig(workers=1)
EARLIER = Quarantined(stage="label", reason="thumbs down", event_id="e-earlier")
OFF: dict[str, Any] = dict.fromkeys(
    ["near_duplicates", "decontaminate", "per_device", "per_template", "dominance", "flip", "balance"]
)
"""Every guard switched off."""


def recipe(task: str = "intent", **select_config: Any) -> Recipe:
    """A recipe with every guard off but those given."""
    return Recipe.model_validate(
        {
            "adapter": "a",
            "task": task,
            "base": "tiny",
            "catalogue": "c.yaml",
            "data": {"sources": [{"kind": "events", "skill": "s"}]},
            "select": OFF | select_config,
        }
    )


def intent(said: str, label: str, device: str | None = None, event: str = "") -> Example:
    """An intent example; without a device it stands in an example file."""
    turns = [Message(role="user", content=said), Message(role="assistant", content=label)]
    if device is None:
        return make_example("intent", turns, source="file.jsonl")
    event_id = event or f"e-{device}-{said}"
    return make_example("intent", turns, source="events:s", group=device, event_ids=[event_id])


def call(said: str, name: str, device: str | None = None, **arguments: Any) -> Example:
    """A function call's example."""
    answer = Message(role="assistant", tool_calls=[ToolCall(name=name, arguments=arguments)])
    turns = [Message(role="user", content=said), answer]
    group, events = (device, [f"e-{device}-{said}"]) if device else ("", [])
    return make_example("function_call", turns, source="events:s", group=group, event_ids=events)


def write_labelled(
    folder: Path,
    examples: Sequence[Example],
    *,
    parts: int = 1,
    pairs: Iterable[PreferencePair] = (),
    rated: Iterable[RatedAnswer] = (),
) -> Path:
    """Write a labelled folder, its examples cut into `parts`."""
    shutil.rmtree(folder, ignore_errors=True)
    size = max(1, -(-len(examples) // parts))
    for part in range(parts):
        write_jsonl(folder / "examples" / f"part-{part:05d}.jsonl", examples[part * size : (part + 1) * size])
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_jsonl(folder / "rated.jsonl", rated)
    write_jsonl(folder / "quarantine.jsonl", [EARLIER])
    return folder


def run_select(
    work: Path,
    examples: Sequence[Example],
    config: Recipe,
    *,
    parts: int = 1,
    evaluation: dict[str, list[str]] | None = None,
    previous: Path | None = None,
    compute: ComputeConfig = HERE,
    **feedback: Any,
) -> tuple[SelectReport, list[Example], list[Quarantined]]:
    """Select in clean folders under `work`; gives the report, what stayed and what did not."""
    labelled = write_labelled(work / "labelled", examples, parts=parts, **feedback)
    out = work / "selected"
    for folder in (out, work / "work"):
        shutil.rmtree(folder, ignore_errors=True)
    sets = {
        name: [[Message(role="user", content=prompt)] for prompt in prompts]
        for name, prompts in (evaluation or {}).items()
    }
    report = select(labelled, config, out, evaluation=sets, previous=previous, compute=compute, work=work / "work")
    return report, selected_examples(out), left_out(out)


def selected_examples(out: Path) -> list[Example]:
    """The examples of a folder, part by part."""
    parts = sorted((out / "examples").glob("part-*.jsonl"))
    return [Example.model_validate(row) for part in parts for row in read_jsonl(part)]


def left_out(out: Path) -> list[Quarantined]:
    """What select left out; checks that what earlier stages left out is still there."""
    earlier, *rows = [Quarantined.model_validate(row) for row in read_jsonl(out / "quarantine.jsonl")]
    assert earlier == EARLIER
    return rows


def sentences(count: int, seed: int, words: tuple[int, int] = (4, 14)) -> list[str]:
    """Distinct made-up requests: no two of them are near."""
    rng = random.Random(seed)
    syllables = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu".split()

    def word() -> str:
        return "".join(rng.choices(syllables, k=rng.randint(1, 4)))

    return [" ".join(word() for _ in range(rng.randint(*words))) + f" {number}" for number in range(count)]
