"""Select: duplicates, evaluation prompts, too much of one kind and what looks poisoned stay out of the release."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from zenml import step

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import Folder, read_jsonl, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_compute
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import EvaluationSet, Recipe
from pocketloop.contracts.reports import SelectReport
from steps.stage import BY_CONTENT, stage


@step(enable_cache=False)
def evaluation_prompts(recipe: Recipe) -> Annotated[Folder, "evaluation_prompts"]:
    """The prompts of every evaluation set, read anew: a set that has changed makes the selection stale."""
    with stage("prompts") as this:
        counts = {
            wanted.name: write_jsonl(this.scratch / f"{wanted.name}.jsonl", _prompts(wanted, recipe.task))
            for wanted in recipe.evaluation.sets
        }
        this.done(", ".join(f"{count} of {name}" for name, count in counts.items()) or "no evaluation set")
        return Folder.of(this.scratch)


@step(cache_policy=BY_CONTENT)
def select(
    recipe: Recipe, labelled: Folder, evaluation_prompts: Folder, previous: str
) -> tuple[Annotated[Folder, "selected"], Annotated[SelectReport, "select_report"]]:
    """Compare with every evaluation set of the recipe, and with release `previous` (empty when there is none yet)."""
    from pocketloop.data.select.selecting import select as select_examples

    with stage("select") as this:
        sets = sorted(evaluation_prompts.path.glob("*.jsonl"))
        report = select_examples(
            labelled.path,
            recipe,
            this.scratch / "selected",
            evaluation={path.stem: _read_prompts(path) for path in sets},
            previous=Home().releases / previous if previous else None,
            compute=load_compute(),
            work=this.scratch / "work",
            kept=Home().cache / "curation",
        )
        count = report.count
        left_out = ", ".join(f"{number} {reason}" for reason, number in count.left_out.items())
        this.done(
            f"{count.kept} of {count.entered} examples" + (f"; left out: {left_out}" if left_out else ""),
            left_out=count.left_out,
            contaminated=report.contaminated,
            guarded=[f"{g.guard}: {g.label} ({g.devices} devices, {g.examples} examples)" for g in report.guarded],
        )
        return Folder.of(this.scratch / "selected"), report


def _prompts(wanted: EvaluationSet, task: Task) -> Iterator[dict[str, Any]]:
    from pocketloop.data.example_files import stream_examples

    examples = (found for found in stream_examples(wanted.uri, task) if isinstance(found, Example))
    for example in islice(examples, wanted.limit):
        yield {"prompt": [turn.model_dump(mode="json") for turn in example.prompt]}


def _read_prompts(path: Path) -> Iterator[list[Message]]:
    return ([Message.model_validate(turn) for turn in row["prompt"]] for row in read_jsonl(path))
