import json
import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from release_samples import LABELS, RECIPE, example, stage_folders, stage_reports, write_sample

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import read_jsonl, sha256_tree
from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import SelectReport, StageCount
from pocketloop.data.release import latest_release, parents, read_profile, read_release, write_release


def test_a_release_leads_from_each_record_to_its_events_and_keeps_what_was_left_out(tmp_path: Path, home: Path) -> None:
    made = write_sample(tmp_path, range(100))
    folder = home / "releases" / made.digest
    assert read_release(folder) == made
    assert sum(made.splits.values()) == made.event_ids == 100
    assert sum(made.groups.values()) == 34
    assert (sum(made.pairs.values()), sum(made.rated.values())) == (10, 20)
    lineage = list(read_jsonl(folder / "lineage.jsonl"))
    for kind, place in (("example", "splits"), ("pair", "splits/pairs"), ("rated", "splits/rated")):
        kept = {
            row[f"{kind}_id"]: (name, row["group"], row["event_ids"])
            for name in made.splits
            for row in read_jsonl(folder / place / f"{name}.jsonl")
        }
        told = {
            row[f"{kind}_id"]: (row["split"], row["group"], row["event_ids"]) for row in lineage if f"{kind}_id" in row
        }
        assert kept == told
    assert [row["event_id"] for row in read_jsonl(folder / "quarantine.jsonl")] == ["e999"]
    assert [stage.stage for stage in made.stages] == ["collect", "scrub", "validate", "label", "select", "split"]
    assert {"card.html", "scrub.html", "found/found.jsonl", "descriptors.parquet"} <= made.files.keys()


def test_a_profile_tells_how_the_records_spread(tmp_path: Path, home: Path) -> None:
    made = write_sample(tmp_path, range(100))
    profile = read_profile(home / "releases" / made.digest)
    assert {label: sum(counts.values()) for label, counts in profile.labels.items()} == dict(
        zip(LABELS, (34, 33, 33), strict=True)
    )
    assert {
        split: sum(counts.get(split, 0) for counts in profile.labels.values()) for split in made.splits
    } == made.splits
    assert (sum(profile.days.values()), profile.days["2026-11-01"]) == (100, 4)
    assert profile.per_device["3–5"] == 33 and profile.per_device["1"] == 1
    assert sum(profile.lengths["prompt"]) == 100
    assert (profile.numbers["turns"].mean, profile.numbers["turns"].median) == (24.5, 24.5)


def test_an_answer_that_no_catalogue_names_is_not_named_by_the_release(tmp_path: Path, home: Path) -> None:
    known = SelectReport(count=StageCount(stage="select", entered=30, kept=30), by_label={"music": 10})
    made = write_sample(tmp_path, range(30), select=known)
    folder = home / "releases" / made.digest
    assert set(read_profile(folder).labels) == {"music", "(other)"}
    for name in ("profile.json", "card.html", "release.json"):
        assert "weather" not in (folder / name).read_text()


def test_the_same_records_give_the_same_release_whatever_else_was_reported(tmp_path: Path, home: Path) -> None:
    first = write_sample(tmp_path, range(50))
    before = sha256_tree(home / "releases" / first.digest)
    scrub = stage_reports(50)["scrub"].model_copy(update={"scrubbed_shards": 0})
    second = write_sample(tmp_path, range(50), scrub=scrub)
    assert second == first
    assert sha256_tree(home / "releases" / first.digest) == before
    assert [path.name for path in (home / "releases").iterdir() if path.is_dir()] == [first.digest]


def test_releases_form_a_chain_and_a_run_with_nothing_new_is_compared_with_the_parent(
    tmp_path: Path, home: Path
) -> None:
    assert latest_release(Home(), "a") is None
    first = write_sample(tmp_path, range(50))
    first_inputs = sha256_tree(tmp_path / "validated")
    assert (first.parent, first.inputs) == (None, first_inputs)
    assert latest_release(Home(), "a", first_inputs) is None
    second = write_sample(tmp_path, range(60))
    assert second.parent == first.digest
    assert latest_release(Home(), "a") == second.digest
    assert latest_release(Home(), "a", sha256_tree(tmp_path / "validated")) == first.digest
    assert latest_release(Home(), "b") is None
    third = write_sample(tmp_path, range(70))
    assert parents(Home(), third) == [second.digest, first.digest]


def test_two_adapters_that_learn_the_same_have_a_release_each(tmp_path: Path, home: Path) -> None:
    first, second = write_sample(tmp_path, range(50)), write_sample(tmp_path, range(50), adapter="b")
    assert (first.adapter, second.adapter) == ("a", "b")
    assert latest_release(Home(), "a") == first.digest != second.digest == latest_release(Home(), "b")


def test_a_release_that_was_changed_or_is_missing_is_not_read(tmp_path: Path, home: Path) -> None:
    made = write_sample(tmp_path, range(50))
    folder = home / "releases" / made.digest
    with pytest.raises(DataError, match="no dataset release"):
        read_release(tmp_path)
    lineage = (folder / "lineage.jsonl").read_text()
    (folder / "lineage.jsonl").write_text(lineage.replace("e1", "e2", 1))
    with pytest.raises(DataError, match=r"lineage\.jsonl: does not match the digest"):
        read_release(folder)
    (folder / "lineage.jsonl").unlink()
    with pytest.raises(DataError, match=r"lineage\.jsonl: does not match the digest"):
        read_release(folder)
    (folder / "lineage.jsonl").write_text(lineage)
    with open(folder / "splits" / "train.jsonl", "a") as out:
        out.write(json.dumps(example(99).model_dump(mode="json")) + "\n")
    with pytest.raises(DataError, match="do not match their digest"):
        read_release(folder)
    (folder / "release.json").write_text('{"digest": "x"}')
    with pytest.raises(DataError, match="not a release of this version"):
        read_release(folder)


def test_a_release_of_an_earlier_version_is_passed_over(tmp_path: Path, home: Path) -> None:
    old = home / "releases" / ("0" * 64)
    old.mkdir(parents=True)
    (old / "release.json").write_text('{"digest": "0", "adapter": "a"}')
    (home / "releases" / "latest-a.json").write_text(json.dumps({"digest": old.name}))
    assert latest_release(Home(), "a") is None
    assert write_sample(tmp_path, range(50)).parent is None


def test_stages_that_do_not_hand_on_what_they_kept_make_no_release(tmp_path: Path, home: Path) -> None:
    lost = SelectReport(count=StageCount(stage="select", entered=40, kept=40))
    with pytest.raises(DataError, match="label kept 50 records, select was given 40"):
        write_sample(tmp_path, range(50), select=lost)
    assert not list((home / "releases").iterdir())


def test_what_a_killed_run_left_behind_is_no_release_and_goes_with_the_next(tmp_path: Path, home: Path) -> None:
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    left, working = (home / "releases" / f".new-{pid}-abc" for pid in (finished.pid, os.getppid()))
    for folder in (left, working):
        (folder / "release").mkdir(parents=True)
    write_sample(tmp_path, range(50))
    assert not left.exists()
    assert working.exists()


def test_a_release_whose_record_is_gone_is_written_anew(tmp_path: Path, home: Path) -> None:
    made = write_sample(tmp_path, range(50))
    folder = home / "releases" / made.digest
    before = sha256_tree(folder)
    (folder / "release.json").unlink()
    assert write_sample(tmp_path, range(50)) == made
    assert sha256_tree(folder) == before


def test_two_runs_that_make_the_same_release_at_once_both_succeed(tmp_path: Path, home: Path) -> None:
    for name in ("one", "two"):
        stage_folders(tmp_path / name, range(200))
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        runs = [pool.submit(write_sample, tmp_path / name, range(200)) for name in ("one", "two")]
    first, second = (run.result() for run in runs)
    assert first == second == read_release(home / "releases" / first.digest)
    assert not list((home / "releases").glob(".new-*"))


def test_a_release_is_written_in_memory_that_does_not_grow_with_its_records(tmp_path: Path, home: Path) -> None:
    peaks = []
    write_sample(tmp_path / "warm", range(10))
    for size in (500, 5000):
        folders = stage_folders(tmp_path / str(size), range(size))
        reports = stage_reports(size)
        tracemalloc.start()
        write_release(Home(), RECIPE, **folders, **reports)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 4500 < 800  # bytes for one more example: identifiers, never its text
