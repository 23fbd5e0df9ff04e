"""DoRA, for real and small: what llama.cpp takes no adapter for is merged, judged, registered and exported."""

import json
from pathlib import Path

import pytest
from command_line import Fleet, WarmFleet

from pocketloop.contracts.files import sha256_file
from pocketloop.registry.mlflow_store import candidate, fetch_bundle

GATED = 3
"""So little training does not beat the base, whose gate no recipe can take away."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SMALL = [
    "--set=data.sources=[{kind: examples, uri: 'demo://functions?split=train&n=240&seed=3'}]",
    "--set=train.lora.method=dora",
    "--set=train.stages.0.sft.epochs=1",
    "--set=evaluation.sets.0.limit=24",
    "--set=gates=[]",
    "--set=safety={behaviour: null}",
    "--set=scrub.ner.engine=none",
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return WarmFleet(tmp_path_factory.mktemp("merged"))


@pytest.fixture(scope="module")
def trained(fleet: Fleet) -> str:
    return fleet.run("retrain", "functions", *SMALL, status=GATED)


def test_what_will_happen_is_said_before_the_first_stage(trained: str) -> None:
    said, _, _ = " ".join(trained.split()).partition("▸")
    assert "since llama.cpp takes no adapter with DoRA" in said and "cannot be published" in said


def test_a_merged_candidate_goes_through_every_stage_and_is_registered_with_its_verdict(
    fleet: Fleet, trained: str
) -> None:
    assert "functions@1 is registered, verdict" in trained and "publish   not this one" in trained
    found = candidate(fleet.home, "functions", "1")
    assert found.merged and found.metrics
    with fetch_bundle(fleet.home, found) as bundle:
        reports = {path.stem: json.loads(path.read_text()) for path in Path(bundle).glob("*.json")}
        assert reports["exported"]["merged"] == ["DoRA"] and reports["bundle"]["files"]["merged.gguf"]
        card = (Path(bundle) / "card.md").read_text(encoding="utf-8")
    parity, (measure,) = reports["parity"], reports["budget"]["measures"]
    assert parity["passed"] and parity["adapter_effect"] > 0.01
    assert measure["merged"] and measure["adapter_bytes"] == 0
    assert {result["model"] for result in reports["evaluation"]["results"]} == {"adapter", "base", "transformers"}
    assert reports["safety"]["checks"]
    assert "Do not promote this version" in card and "GGUF, merged" in card


def test_nobody_can_approve_it(fleet: Fleet, trained: str) -> None:
    (listed,) = json.loads(fleet.run("review", "list", "--json"))
    assert listed["merged"]
    assert "did not pass its gates" in fleet.run("review", "approve", "functions@1", status=1)


def test_it_is_exported_as_one_model_that_was_judged_and_says_why(fleet: Fleet, trained: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = fleet.run("export", "functions@1", "--out", str(out), "--json")
    report = json.loads(printed[printed.index("{\n") :])
    (file,) = report["files"]
    assert (file["path"], file["role"]) == ("gguf/merged.gguf", "merged")
    assert file["digest"] == sha256_file(out / "gguf" / "merged.gguf") and file["parity"]["passed"]
    assert "with DoRA" in file["note"] and report["probes_failed"] == 0 and report["probes"]
    assert "with DoRA" in (out / "export.html").read_text()


def test_it_is_scored_on_somebodys_data_and_is_part_of_no_shape(fleet: Fleet, trained: str, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text('{"input": "set a timer for 10 minutes", "function": "set_timer", "arguments": {}}\n')
    assert json.loads(fleet.run("evaluate", "functions@1", "--data", str(data), "--json"))["n"] == 1
    said = fleet.run("fleet", "simulate", "--candidate", "functions@1", status=1)
    assert "functions@1 was merged into a whole model" in " ".join(said.split())
