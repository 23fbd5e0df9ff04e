"""The main job, for real and small: events in, a registered candidate out."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import SMALL, Fleet, WarmFleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_a_killed_run_is_continued_from_its_last_finished_stage_and_its_last_checkpoint(
    fleet: Fleet, first_run: str
) -> None:
    assert "train.stages.0.sft: going on at step" in first_run
    assert "✓ train" in first_run
    assert "✓ scrub" not in first_run
    assert "functions@1 is registered, verdict pass" in first_run
    assert not [path for path in (fleet.home.root / "training" / "functions").iterdir() if path.is_dir()]


def test_the_candidate_waits_with_its_verdict_metrics_and_digests(fleet: Fleet, first_run: str) -> None:
    (candidate,) = json.loads(fleet.run("review", "list", "--json"))
    assert candidate["verdict"] == "pass"
    assert candidate["metrics"]["function_exact"] > 0
    assert all(len(candidate[key]) == 64 for key in ("digest", "dataset_digest", "recipe_digest", "base_digest"))
    assert "base without adapter" in fleet.run("review", "show", "functions")


def test_a_version_leads_back_to_events_whose_consent_covers_training(fleet: Fleet, first_run: str) -> None:
    from pocketloop.contracts.files import read_jsonl

    traced = json.loads(fleet.run("trace", "functions@1", "--json"))
    posted = {row["event_id"]: row for row in read_jsonl(next((fleet.home.root / "demo").glob("*.jsonl")))}
    assert len(traced["event_ids"]) > 300
    assert all(posted[event_id]["consent"]["training"] for event_id in traced["event_ids"])
    assert traced["release"]["scrub"]["found"]


def test_nothing_that_a_person_wrote_reaches_the_registry(fleet: Fleet, first_run: str) -> None:
    """Neither names nor numbers of the fleet's people, nor whole sentences, stand in what MLflow keeps."""
    from pocketloop.contracts.files import read_jsonl

    rows = list(read_jsonl(next((fleet.home.root / "demo").glob("*.jsonl"))))
    sentences = {m["content"] for row in rows for m in row["messages"] if len(m["content"]) > 30}
    kept = "\n".join(
        path.read_text("utf-8", errors="ignore")
        for path in fleet.home.mlflow_artifacts.rglob("*")
        if path.suffix in (".json", ".md", ".html")
    )
    assert "function_exact" in kept
    assert not [sentence for sentence in sentences if sentence in kept]


def test_with_nothing_new_every_stage_is_reused(fleet: Fleet, first_run: str) -> None:
    printed = fleet.run("retrain", "functions", *SMALL)
    assert "✓ train" not in printed
    assert "✓ scrub" not in printed
    assert "functions@1 is registered" in printed


def test_new_events_touch_only_their_own_shards(fleet: Fleet, first_run: str, tmp_path: Path) -> None:
    """In a copy of what curation reads, so that the newest release stays the one that was trained on."""
    later = WarmFleet(tmp_path)
    for kept in (fleet.home.events, fleet.home.cache, fleet.home.keys, fleet.home.root / "demo"):
        shutil.copytree(kept, tmp_path / kept.name, dirs_exist_ok=True)
    later.run("data", "demo", "--add", "100")
    printed = later.run("curate", "functions", *SMALL)
    scrubbed = next(line for line in printed.splitlines() if "✓ scrub" in line)
    reused, shards = scrubbed.split(";")[-1].split(" shards")[0].split(" of ")
    assert int(shards) - int(reused) <= 2 < int(shards)


def test_a_failing_gate_registers_the_verdict_and_exits_with_3(fleet: Fleet, first_run: str) -> None:
    gate = "--set=gates=[{metric: function_exact, min: 0.9999}]"
    printed = fleet.run("train", "functions", *SMALL, gate, status=3)
    assert "did not pass its gates (fail)" in printed
    assert "✓ train" not in printed
    assert json.loads(fleet.run("review", "list", "--json"))[0]["verdict"] == "fail"


def test_evaluate_prints_n_and_the_tasks_metrics(fleet: Fleet, first_run: str, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text('{"input": "set a timer for 10 minutes", "function": "set_timer", "arguments": {}}\n{"input": 3}\n')
    measured = json.loads(fleet.run("evaluate", "functions@1", "--data", str(data), "--json"))
    assert (measured["n"], measured["refused"]) == (1, 1)
    assert set(measured) > {"function_name", "function_exact"}
