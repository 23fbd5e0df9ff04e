"""Stages called by hand make what the pipeline makes."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_line import WarmFleet

from pipelines import by_hand
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_recipe
from pocketloop.data.release import latest_release

RECIPE = ["data.sources.1.uri=demo://functions?split=train&n=60&seed=3", "label.min_kappa=-1"]


@pytest.mark.slow
def test_a_release_made_by_hand_is_the_one_that_the_pipeline_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = WarmFleet(tmp_path)
    fleet.run("data", "demo", "--events", "200")
    monkeypatch.setenv("POCKETLOOP_HOME", str(fleet.home.root))
    by_hands = by_hand.curate(fleet.home, load_recipe("functions", RECIPE), datetime.now(UTC))
    (fleet.home.releases / "latest-functions.json").unlink()
    fleet.run("curate", "functions", *(f"--set={one}" for one in RECIPE))
    assert latest_release(fleet.home, "functions") == by_hands.digest


def test_notebooks_work_in_a_home_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLOOP_HOME", str(tmp_path))
    monkeypatch.setenv("ZENML_LOGGING_VERBOSITY", "ERROR")
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebodys-server")
    home = by_hand.demo_home()
    assert home.root == tmp_path / "notebooks" == Home().root
    assert os.environ["ZENML_CONFIG_PATH"] == str(home.zenml)
    assert str(home.root) in home.mlflow_uri
    assert by_hand.demo_home().root == home.root


def test_the_widgets_events_are_those_whose_answer_calls_what_it_makes() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "set_timer", "arguments": {}}]}
    asked = {"role": "user", "content": "a timer"}
    assert by_hand.from_widget({"messages": [asked, call, {"role": "user", "content": "thanks"}]})
    assert not by_hand.from_widget({"messages": [asked, {**call, "tool_calls": [{"name": "make_call"}]}]})
    assert not by_hand.from_widget(json.loads('{"messages": [{"role": "user", "content": "hello"}]}'))
