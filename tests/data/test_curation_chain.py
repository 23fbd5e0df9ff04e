"""The whole way from the log to a release, on real dialogues and on the demo fleet."""

import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import Folder, read_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue, load_recipe
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import DatasetRelease
from pocketloop.data.collect import collect
from pocketloop.data.drift import drift
from pocketloop.data.event_log import import_file
from pocketloop.data.release import write_release
from pocketloop.data.validate import validate
from pocketloop.labeling.label import label
from pocketloop.privacy.pseudonyms import load_key
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards
from pocketloop.privacy.slots import slots_of

NOW = datetime(2026, 11, 20, tzinfo=UTC)

pytestmark = pytest.mark.slow


def curate(recipe: Recipe, work: Path) -> tuple[DatasetRelease, dict[str, str]]:
    """Run every stage in `work`; returns the release and the digest of each stage's folder."""
    home, catalogue = Home(), load_catalogue(recipe)
    reports: dict[str, Any] = {"collect": collect(recipe, home.events, work / "collected", NOW)}
    scrubber = Scrubber(recipe.scrub, load_key(home), slots_of(catalogue))
    shards = sorted((work / "collected").glob("events-*.jsonl"))
    reports["scrub"] = scrub_shards(shards, work / "scrubbed", scrubber, home.cache / "scrub")
    shutil.copy(work / "collected" / "examples.jsonl", work / "scrubbed" / "examples.jsonl")
    reports["validation"] = validate(work / "scrubbed", recipe, catalogue, work / "validated")
    reports["drift"] = drift(work / "validated", recipe, None, work / "drift")
    reports["label"] = label(work / "validated", recipe, catalogue, work / "labelled")
    release = write_release(home, recipe, work / "labelled", work / "validated", **reports)
    return release, {folder.name: Folder.of(folder).digest for folder in work.iterdir()}


def examples_of(release: DatasetRelease) -> list[Example]:
    splits = Home().releases / release.digest / "splits"
    return [Example.model_validate(row) for name in release.splits for row in read_jsonl(splits / f"{name}.jsonl")]


def test_real_dialogues_become_a_chat_release_and_every_event_is_accounted_for(
    shared_data: Path, home: Path, tmp_path: Path
) -> None:
    log = shared_data / "sgd" / "events.jsonl.gz"
    import_file(log, Home().events, NOW)
    release, first = curate(load_recipe("assistant"), tmp_path / "one")
    assert release.collect.left_out == {"no consent": 202}
    kept = examples_of(release)
    left_out = list(read_jsonl(Home().releases / release.digest / "quarantine.jsonl"))
    assert len(kept) + len(left_out) + 202 == 2000
    assert all(example.answer.role == "assistant" and len(example.messages) >= 2 for example in kept)
    assert sum(bool(turn.tool_calls) for example in kept for turn in example.messages) > len(kept)
    again, second = curate(load_recipe("assistant"), tmp_path / "two")
    assert (again, second) == (release, first)


def test_the_demo_fleets_judge_agrees_with_its_people(home: Path, tmp_path: Path) -> None:
    from pocketloop.contracts.files import write_jsonl
    from pocketloop.data.demo import demo_events

    write_jsonl(tmp_path / "fleet.jsonl", demo_events(3000, 1, start=0, now=NOW))
    import_file(tmp_path / "fleet.jsonl", Home().events, NOW)
    for name in ("functions", "intent"):
        recipe = load_recipe(name)
        release, _ = curate(recipe, tmp_path / name)
        assert release.label.kappa is not None and release.label.kappa >= recipe.label.min_kappa
        answers = Counter(e.answer.content or e.answer.tool_calls[0].name for e in examples_of(release))
        assert len(answers) >= 12
        assert min(release.splits.values()) > 0
