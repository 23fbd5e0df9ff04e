"""A night works on what is new: what stages kept of earlier nights changes nothing but the time it takes."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import IntentRow, example_from_row
from pocketloop.contracts.files import Folder, read_jsonl, write_jsonl
from pocketloop.contracts.kept import forget_device
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.data import checking
from pocketloop.data.select import keys
from pocketloop.data.select.selecting import select
from pocketloop.data.validate import validate
from pocketloop.labeling.label import label
from pocketloop.tasks.forms import FormChecker

pytestmark = pytest.mark.slow  # importing Great Expectations takes seconds

LABELS = Catalogue(labels=["music", "weather", "timer"])
SAID = {
    "music": ["play some {}", "put on {} music", "next song by {}", "turn up the {} album"],
    "weather": ["will it rain in {}", "forecast for {}", "how cold is it in {}", "weather in {} today"],
    "timer": ["set a timer for {}", "count down from {}", "wake me in {}", "timer {} please"],
}
WORDS = ["jazz", "oslo", "ten minutes", "berlin", "rock", "an hour", "soul", "rome", "pop"]
SHARD = 60


def event(number: int) -> dict[str, Any]:
    """Some are liked, corrected, wrong, outside the catalogue, garbled, or have no answer at all."""
    name = ["music", "weather", "timer"][number % 3]
    said = SAID[name][number % 4].format(WORDS[number // 4 % 9]) + f" {number % 50}"
    answer = {11: "timer", 17: "unheard of"}.get(number % 41, name)
    turns = [{"role": "user", "content": said + ("\ufffd" if number % 61 == 3 else "")}]
    if number % 53:
        turns.append({"role": "assistant", "content": answer})
    feedback: dict[str, Any] = {"rating": {0: "up", 4: "down"}.get(number % 7)}
    if number % 29 == 5:
        feedback["correction"] = name
    return {
        "event_id": f"e{number}",
        "group": f"g-{number % 97:04}",
        "ts": f"2026-11-{number % 28 + 1:02}T10:00:00Z",
        "app_version": "4.2.0",
        "locale": ["en-US", "de-DE", ""][number % 3],
        "adapter": {"skill": "intent"},
        "consent": {"training": True, "policy": "p"},
        "messages": turns,
        "feedback": feedback,
        "metrics": {},
        "found": {},
    }


def scrubbed(folder: Path, shards: int) -> Path:
    for shard in range(shards):
        first = shard * SHARD + 1
        name = f"events-{first:09d}-{first + SHARD - 1:09d}.jsonl"
        write_jsonl(folder / name, (event(number) for number in range(first, first + SHARD)))
    rows = [IntentRow(input=f"{said.format('blues')} now", output=name) for name in SAID for said in SAID[name]]
    write_jsonl(folder / "examples.jsonl", [example_from_row(row, source="f") for row in rows])
    write_jsonl(folder / "quarantine.jsonl", [])
    return folder


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "adapter": "a",
            "task": "intent",
            "base": "tiny",
            "catalogue": "c.yaml",
            "data": {"sources": [{"kind": "events", "skill": "intent"}]},
            "label": {"min_kappa": -1},
        }
        | sections
    )


def night(
    folder: Path, work: Path, kept: Path | None, wanted: Recipe, catalogue: Catalogue = LABELS
) -> tuple[dict[str, str], list[Any]]:
    """Run the stages that keep something: the digest of each one's folder, and their reports."""
    prompts = [[Message(role="user", content="will it rain in oslo today")]]
    reports: list[Any] = [validate(folder, wanted, catalogue, work / "validated", kept=kept)]
    reports.append(label(work / "validated", wanted, catalogue, work / "labelled", kept=kept))
    reports.append(
        select(
            work / "labelled",
            wanted,
            work / "selected",
            evaluation={"heldout": prompts},
            previous=None,
            compute=ComputeConfig(workers=1),
            work=work / "selecting",
            kept=kept,
        )
    )
    return {name: Folder.of(work / name).digest for name in ("validated", "labelled", "selected")}, reports


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many records each stage really worked on."""
    counts = Counter[str]()

    def count(stage: str, plain: Callable[..., Any], *given: Any) -> Any:
        counts[stage] += 1
        return plain(*given)

    problem = FormChecker.problem
    monkeypatch.setattr(checking, "describe_event", partial(count, "validate", checking.describe_event))
    monkeypatch.setattr(keys, "document", partial(count, "select", keys.document))
    monkeypatch.setattr(
        FormChecker,
        "problem",
        lambda self, prompt, answer, grounded=True: count("label", problem, self, prompt, answer, grounded),
    )
    return counts


def test_cold_warm_and_with_new_shards_the_results_are_those_without_a_cache(
    tmp_path: Path, worked: Counter[str]
) -> None:
    wanted, kept = recipe(), tmp_path / "kept"
    few, more = scrubbed(tmp_path / "few", 4), scrubbed(tmp_path / "more", 5)
    plain = [night(folder, tmp_path / f"plain-{folder.name}", None, wanted) for folder in (few, more)]
    assert {row["reason"] for row in read_jsonl(tmp_path / "plain-few" / "selected" / "quarantine.jsonl")} >= {
        "garbled text",
        "no answer",
        "label not in the catalogue",
        "thumbs down",
        "other data speaks against it",
    }
    assert night(few, tmp_path / "cold", kept, wanted) == plain[0]
    worked.clear()
    assert night(few, tmp_path / "warm", kept, wanted) == plain[0]
    corrections = sum(event(number)["feedback"].get("correction") is not None for number in range(1, 4 * SHARD + 1))
    assert worked["validate"] == worked["select"] == 0
    assert worked["label"] <= corrections, "what people corrected is looked at every time"
    worked.clear()
    assert night(more, tmp_path / "new", kept, wanted) == plain[1]
    assert worked["validate"] == SHARD
    assert worked["label"] <= 2 * SHARD
    assert worked["select"] <= 2 * SHARD, "the new ones, and those that the judge sees otherwise now"


def test_another_recipe_or_catalogue_finds_nothing_that_was_kept_for_this_one(
    tmp_path: Path, worked: Counter[str]
) -> None:
    folder, kept = scrubbed(tmp_path / "scrubbed", 3), tmp_path / "kept"
    night(folder, tmp_path / "one", kept, recipe())
    wider = Catalogue(labels=[*LABELS.labels, "unheard of"])
    for name, wanted, catalogue, stages in (
        ("catalogue", recipe(), wider, ("validate", "label")),
        ("select", recipe(select={"near_duplicates": None}), LABELS, ("select",)),
        ("runs", recipe(select={"decontaminate": 4}), LABELS, ("select",)),
    ):
        plain = night(folder, tmp_path / f"plain-{name}", None, wanted, catalogue)
        worked.clear()
        assert night(folder, tmp_path / name, kept, wanted, catalogue) == plain
        assert all(worked[stage] > 2 * SHARD for stage in stages), name


def test_a_damaged_entry_is_noticed_and_made_again(tmp_path: Path) -> None:
    folder, kept = scrubbed(tmp_path / "scrubbed", 3), tmp_path / "kept"
    plain = night(folder, tmp_path / "plain", kept, recipe())
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    for path, content in before.items():
        path.unlink()  # a file may lie in a stage's folder as well
        path.write_bytes(content[: len(content) // 2] + b"\x00" + content[len(content) // 2 + 1 :])
    assert night(folder, tmp_path / "again", kept, recipe()) == plain
    assert {path.name for path in kept.rglob("*")} == {path.name for path in [*before, *kept.iterdir()]}


def test_nothing_of_a_forgotten_device_stays_and_others_are_worked_on_again(tmp_path: Path) -> None:
    folder, kept = scrubbed(tmp_path / "scrubbed", 4), tmp_path / "kept"
    plain = night(folder, tmp_path / "plain", kept, recipe())
    entries = len(list(kept.iterdir()))
    group = event(7)["group"]
    gone = forget_device(kept, group)
    assert 0 < gone < entries
    assert len(list(kept.iterdir())) == entries - gone
    traces = [group, *(f'"{row["event_id"]}"' for row in map(event, range(1, 4 * SHARD + 1)) if row["group"] == group)]
    left = [path.read_bytes() for path in kept.rglob("*") if path.is_file()]
    assert not [content for content in left if any(trace.encode() in content for trace in traces)]
    assert night(folder, tmp_path / "again", kept, recipe()) == plain
