"""The whole way from the log to a release, on real dialogues and on the demo fleet."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import Folder, read_jsonl, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue, load_recipe
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import DatasetRelease
from pocketloop.data.collect import collect
from pocketloop.data.demo import demo_events
from pocketloop.data.drift import drift
from pocketloop.data.event_log import import_file
from pocketloop.data.example_files import stream_examples
from pocketloop.data.release import latest_release, write_release
from pocketloop.data.select.selecting import select
from pocketloop.data.shards import MANIFEST, LogShards
from pocketloop.data.validate import validate
from pocketloop.labeling.label import label
from pocketloop.privacy.pseudonyms import load_key
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards
from pocketloop.privacy.slots import slots_of, vocabulary_of

NOW = datetime(2026, 11, 20, tzinfo=UTC)

pytestmark = pytest.mark.slow


def curate(recipe: Recipe, work: Path, now: datetime = NOW) -> tuple[DatasetRelease, dict[str, str]]:
    """Run every stage in `work`; returns the release and the digest of each stage's folder."""
    home, catalogue = Home(), load_catalogue(recipe)
    reports: dict[str, Any] = {"collect": collect(recipe, home.events, work / "collected", now)}
    scrubber = Scrubber(recipe.scrub, load_key(home), slots_of(catalogue), vocabulary_of(catalogue))
    shards = LogShards(home.events, work / "collected" / MANIFEST)
    reports["scrub"] = scrub_shards(
        shards, work / "scrubbed", scrubber, home.cache / "scrub", collected=work / "collected"
    )
    reports["validation"] = validate(work / "scrubbed", recipe, catalogue, work / "validated")
    previous = latest_release(home, recipe.adapter, Folder.of(work / "validated").digest)
    reference = home.releases / previous if previous else None
    reports["drift"] = drift(work / "validated", recipe, reference, work / "drift")
    reports["label"] = label(work / "validated", recipe, catalogue, work / "labelled")
    reports["select"] = select(
        work / "labelled",
        recipe,
        work / "selected",
        evaluation={wanted.name: prompts(wanted.uri, recipe) for wanted in recipe.evaluation.sets},
        previous=reference,
        compute=ComputeConfig(workers=1),
        work=work / "selecting",
    )
    folders: dict[str, Any] = {name: work / name for name in ("scrubbed", "validated", "selected")}
    release = write_release(home, recipe, **folders, **reports)
    # The scrubber's page says how many shards it knew already, which a second run does not share.
    return release, {name: Folder.of(folders[name]).digest for name in ("validated", "selected")}


def prompts(uri: str, recipe: Recipe) -> Iterator[list[Message]]:
    return (found.prompt for found in stream_examples(uri, recipe.task) if isinstance(found, Example))


def examples_of(release: DatasetRelease) -> list[Example]:
    splits = Home().releases / release.digest / "splits"
    return [Example.model_validate(row) for name in release.splits for row in read_jsonl(splits / f"{name}.jsonl")]


def quarantined(release: DatasetRelease) -> Counter[tuple[str, str]]:
    """What the release's file says was left out, by stage and reason."""
    rows = read_jsonl(Home().releases / release.digest / "quarantine.jsonl")
    return Counter((row["stage"], row["reason"]) for row in rows)


def left_out(release: DatasetRelease) -> Counter[tuple[str, str]]:
    """What the stages counted as left out, but for other skills' events, which no quarantine lists."""
    return Counter(
        {
            (stage.stage, reason): count
            for stage in release.stages
            for reason, count in stage.left_out.items()
            if reason != "other skill"
        }
    )


def test_real_dialogues_become_a_chat_release_and_every_event_is_accounted_for(
    shared_data: Path, home: Path, tmp_path: Path
) -> None:
    with gzip.open(shared_data / "sgd" / "events.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = list(islice(file, 500))
    (tmp_path / "sgd.jsonl").write_text("".join(lines), encoding="utf-8")
    import_file(tmp_path / "sgd.jsonl", Home().events, NOW)
    release, first = curate(load_recipe("assistant"), tmp_path / "one")
    refused = sum(not json.loads(line)["consent"]["training"] for line in lines)
    assert release.stages[0].left_out["no consent"] == refused > 30
    kept = examples_of(release)
    assert len(kept) + sum(quarantined(release).values()) == release.stages[0].entered == 500
    assert quarantined(release) == left_out(release)
    assert all(example.answer.role == "assistant" and len(example.messages) >= 2 for example in kept)
    assert sum(bool(turn.tool_calls) for example in kept for turn in example.messages) > len(kept)
    again, second = curate(load_recipe("assistant"), tmp_path / "two")
    assert (again, second) == (release, first)


def test_the_demo_fleets_judge_agrees_with_its_people(home: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "fleet.jsonl", demo_events(3000, 1, start=0, now=NOW))
    import_file(tmp_path / "fleet.jsonl", Home().events, NOW)
    for name in ("functions", "intent"):
        recipe = load_recipe(name, [f"data.sources=[{{kind: events, skill: {name}}}]"])
        release, _ = curate(recipe, tmp_path / name)
        (agreed,) = release.label.agreement
        assert agreed.kappa is not None and agreed.kappa >= recipe.label.min_kappa
        answers = Counter(e.answer.content or e.answer.tool_calls[0].name for e in examples_of(release))
        assert len(answers) >= 12
        assert min(release.splits.values()) > 0
        assert quarantined(release) == left_out(release)


def test_more_events_give_a_child_that_is_compared_with_its_parent(home: Path, tmp_path: Path) -> None:
    recipe = load_recipe("functions", ["data.sources=[{kind: events, skill: functions}]", "label.min_kappa=-1"])
    for size in (1200, 2000):
        write_jsonl(tmp_path / f"{size}.jsonl", demo_events(size, 1, start=0, now=NOW))
    import_file(tmp_path / "1200.jsonl", Home().events, NOW)
    first, _ = curate(recipe, tmp_path / "one")
    import_file(tmp_path / "2000.jsonl", Home().events, NOW)
    second, _ = curate(recipe, tmp_path / "two")
    assert (second.parent, second.drift.reference) == (first.digest, first.digest)
    assert second.drift.verdict == "none"
    places = {
        release.digest: {example.group: name for name in release.splits for example in split(release, name)}
        for release in (first, second)
    }
    kept = places[first.digest].keys() & places[second.digest].keys()
    assert kept and all(places[first.digest][group] == places[second.digest][group] for group in kept)
    assert "What changed against the parent" in (Home().releases / second.digest / "card.html").read_text()


def split(release: DatasetRelease, name: str) -> Iterator[Example]:
    return map(Example.model_validate, read_jsonl(Home().releases / release.digest / "splits" / f"{name}.jsonl"))
