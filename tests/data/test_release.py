import json
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, make_example
from pocketloop.contracts.files import read_jsonl, sha256_tree, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    CollectReport,
    DatasetRelease,
    DriftReport,
    LabelReport,
    ScrubReport,
    ValidationReport,
)
from pocketloop.data.release import latest_release, read_release, write_release

RECIPE = Recipe.model_validate(
    {"adapter": "a", "task": "chat", "base": "tiny", "data": {"sources": [{"kind": "events", "skill": "s"}]}}
)


def example(number: int) -> Example:
    turns = [Message(role="user", content=f"say {number}"), Message(role="assistant", content="ok")]
    return make_example("chat", turns, source="events:s", group=f"g{number}", event_ids=[f"e{number}"])


def release(folder: Path, numbers: range, scrubbed_shards: int = 1, adapter: str = "a") -> DatasetRelease:
    labelled, validated = folder / "labelled", folder / "validated"
    write_jsonl(labelled / "examples.jsonl", [example(n) for n in numbers])
    write_jsonl(labelled / "quarantine.jsonl", [{"stage": "label", "reason": "thumbs down", "event_id": "e999"}])
    validated.mkdir(exist_ok=True)
    (validated / "descriptors.csv").write_text(f"turns\n{len(numbers)}\n")
    reports: dict[str, Any] = {
        "collect": CollectReport(events=len(numbers), examples=0, by_source={}, watermark=len(numbers)),
        "scrub": ScrubReport(
            records=1, quarantined=0, found={}, reused_shards=0, scrubbed_shards=scrubbed_shards, leaks=0, scrubber="x"
        ),
        "validation": ValidationReport(rows=1, success=True, expectations={}),
        "drift": DriftReport(reference=None, rows=1, share=0, drifted=False),
        "label": LabelReport(
            judge="verifier", examples=1, corrected=0, rejected={}, rated=0, kappa=None, kappa_interval=None
        ),
    }
    recipe = RECIPE.model_copy(update={"adapter": adapter})
    return write_release(Home(), recipe, labelled, validated, **reports)


def test_a_release_leads_from_each_example_to_its_events_and_keeps_what_was_left_out(
    tmp_path: Path, home: Path
) -> None:
    made = release(tmp_path, range(100))
    folder = home / "releases" / made.digest
    assert read_release(folder) == made
    assert sum(made.splits.values()) == made.event_ids == 100
    kept = [row["example_id"] for name in made.splits for row in read_jsonl(folder / "splits" / f"{name}.jsonl")]
    lineage = {row["example_id"]: row["event_ids"] for row in read_jsonl(folder / "lineage.jsonl")}
    assert set(kept) == set(lineage)
    assert sorted(ids[0] for ids in lineage.values()) == sorted(f"e{n}" for n in range(100))
    assert [row["event_id"] for row in read_jsonl(folder / "quarantine.jsonl")] == ["e999"]


def test_the_same_examples_give_the_same_release_whatever_else_was_reported(tmp_path: Path, home: Path) -> None:
    first = release(tmp_path, range(50), scrubbed_shards=3)
    before = sha256_tree(home / "releases" / first.digest)
    second = release(tmp_path, range(50), scrubbed_shards=0)
    assert second == first
    assert sha256_tree(home / "releases" / first.digest) == before
    assert [path.name for path in (home / "releases").iterdir() if path.is_dir()] == [first.digest]


def test_releases_form_a_chain_and_a_run_with_nothing_new_is_compared_with_the_parent(
    tmp_path: Path, home: Path
) -> None:
    assert latest_release(Home(), "a") is None
    first = release(tmp_path, range(50))
    first_inputs = sha256_tree(tmp_path / "validated")
    assert (first.parent, first.inputs) == (None, first_inputs)
    assert latest_release(Home(), "a", first_inputs) is None
    second = release(tmp_path, range(60))
    assert second.parent == first.digest
    assert latest_release(Home(), "a") == second.digest
    assert latest_release(Home(), "a", sha256_tree(tmp_path / "validated")) == first.digest
    assert latest_release(Home(), "b") is None


def test_two_adapters_that_learn_the_same_have_a_release_each(tmp_path: Path, home: Path) -> None:
    first, second = release(tmp_path, range(50)), release(tmp_path, range(50), adapter="b")
    assert (first.adapter, second.adapter) == ("a", "b")
    assert latest_release(Home(), "a") == first.digest != second.digest == latest_release(Home(), "b")


def test_a_release_that_was_changed_or_is_missing_is_not_read(tmp_path: Path, home: Path) -> None:
    made = release(tmp_path, range(50))
    folder = home / "releases" / made.digest
    with open(folder / "splits" / "train.jsonl", "a") as out:
        out.write(json.dumps(example(99).model_dump(mode="json")) + "\n")
    with pytest.raises(DataError, match="do not match their digest"):
        read_release(folder)
    with pytest.raises(DataError, match="no dataset release"):
        read_release(tmp_path)
    (folder / "release.json").write_text('{"digest": "x"}')
    with pytest.raises(DataError, match="not a release of this version"):
        read_release(folder)
