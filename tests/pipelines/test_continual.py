"""Going on from the champion, for real and small: new data on top of what the fleet runs, and what that forgets."""

import json
from pathlib import Path

import pytest
from command_line import Fleet, WarmFleet

from pocketloop.contracts.reports import TrainReport
from pocketloop.evaluation.forgetting import Forgetting
from pocketloop.registry.mlflow_store import CHAMPION, candidate, client, fetch_bundle, released_name

GATED = 3
"""So little training does not beat the base, whose gate no recipe can take away."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

OLD = "{kind: examples, uri: 'demo://functions?split=train&n=240&seed=3'}"
NEW = "{kind: examples, uri: 'demo://functions?split=train&n=120&seed=4'}"
SMALL = [
    "--set=train.stages.0.sft.epochs=1",
    "--set=train.start=champion",
    "--set=train.replay=0.25",
    "--set=evaluation.sets.0.limit=24",
    "--set=gates=[]",
    "--set=safety={behaviour: null}",
    "--set=scrub.ner.engine=none",
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A home whose fleet runs the first version, trained on the old data alone."""
    fleet = WarmFleet(tmp_path_factory.mktemp("continual"))
    printed = fleet.run("retrain", "functions", *SMALL, f"--set=data.sources=[{OLD}]", status=GATED)
    assert "functions@1 is registered" in printed
    assert "going on from" not in printed  # there was no champion yet
    api = client(fleet.home)
    copy = api.copy_model_version("models:/functions/1", released_name("functions"))
    api.set_registered_model_alias(released_name("functions"), CHAMPION, copy.version)
    return fleet


@pytest.fixture(scope="module")
def continued(fleet: Fleet) -> str:
    return fleet.run("retrain", "functions", *SMALL, f"--set=data.sources=[{OLD}, {NEW}]", status=GATED)


def bundle_file(fleet: Fleet, name: str) -> str:
    with fetch_bundle(fleet.home, candidate(fleet.home, "functions", "2")) as folder:
        return Path(folder / name).read_text(encoding="utf-8")


def test_a_champion_that_has_seen_all_of_it_has_nothing_to_learn(fleet: Fleet) -> None:
    printed = fleet.run("retrain", "functions", *SMALL, f"--set=data.sources=[{OLD}]", status=1)
    assert "nothing to learn: version 1, the champion, was trained on all" in printed
    assert "train.start=base" in printed


def test_new_examples_are_learnt_with_a_share_of_old_ones(fleet: Fleet, continued: str) -> None:
    assert "functions@2 is registered" in continued
    report = TrainReport.model_validate_json(bundle_file(fleet, "training.json"))
    (line,) = (line for line in continued.splitlines() if "going on from version 1" in line)
    new = int(line.split(": ")[1].split(" new")[0])
    assert report.start == "1"
    assert report.stages[0].examples == new + report.replayed
    assert report.replayed == pytest.approx(new / 3, abs=1)
    assert 60 < new <= 120


def test_the_report_shows_what_was_forgotten_on_old_sets(fleet: Fleet, continued: str) -> None:
    changes = [Forgetting.model_validate(row) for row in json.loads(bundle_file(fleet, "forgetting.json"))]
    assert [change.set for change in changes] == ["heldout", "champion_test"]
    assert all(change.total.n >= 15 for change in changes)
    assert "What was forgotten" in bundle_file(fleet, "report.html")
    assert "What was forgotten" in bundle_file(fleet, "card.md")


def test_an_adapter_of_another_shape_is_no_start(fleet: Fleet, continued: str) -> None:
    sources = f"--set=data.sources=[{OLD}, {NEW}]"
    printed = fleet.run("train", "functions", *SMALL, sources, "--set=train.lora.r=8", status=1)
    assert "functions@1's adapter has another shape than train.lora asks for (r: 16 there, 8 here)" in printed


def test_a_release_that_is_gone_cannot_say_what_was_seen(fleet: Fleet, continued: str) -> None:
    gone = fleet.home.releases / candidate(fleet.home, "functions", "1").dataset_digest
    gone.rename(gone.with_name("hidden"))
    try:
        sources = f"--set=data.sources=[{OLD}, {NEW}]"
        printed = fleet.run("train", "functions", *SMALL, sources, "--set=train.seed=8", status=1)
    finally:
        gone.with_name("hidden").rename(gone)
    assert f"functions@1 was trained on release {gone.name[:12]}, which is gone from releases/" in printed
