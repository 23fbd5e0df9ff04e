"""Schedules of an orchestrator, in a real ZenML store: what it is handed, and what it is told afterwards."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.schedules import Night, Outcome, Schedule

pytestmark = pytest.mark.slow

STACK = """\
name: test-{flavor}
components:
  orchestrator: {{flavor: {flavor}}}
  artifact_store: {{flavor: local}}
  experiment_tracker: {{flavor: mlflow, configuration: {{tracking_uri: "sqlite:///{folder}/mlflow.db"}}}}
  alerter: {{flavor: file}}
"""
FLAVORS = {"RecordingFlavor": "orchestrator", "UnchangingFlavor": "orchestrator", "FileAlerterFlavor": "alerter"}


@pytest.fixture
def cluster(home: Path, tmp_path: Path, zenml_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for stack files; `notes.jsonl` in it is what the orchestrator and the alerter wrote down."""
    from zenml.client import Client
    from zenml.enums import StackComponentType

    monkeypatch.setenv("RECORDING_NOTES", str(tmp_path / "notes.jsonl"))
    known = {flavor.name for flavor in Client().list_flavors(size=500).items}
    for flavor, kind in FLAVORS.items():
        name = {"RecordingFlavor": "recording", "UnchangingFlavor": "unchanging", "FileAlerterFlavor": "file"}[flavor]
        if name not in known:
            Client().create_flavor(f"recording_stack.{flavor}", StackComponentType(kind))
    return tmp_path


def stack(folder: Path, flavor: str) -> str:
    file = folder / f"{flavor}.yaml"
    file.write_text(STACK.format(flavor=flavor, folder=folder))
    return str(file)


def notes(folder: Path) -> list[dict[str, Any]]:
    file = folder / "notes.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def run(*arguments: str, status: int = 0) -> str:
    from pocketloop.cli.main import app

    done = CliRunner().invoke(app, ["schedule", *arguments])
    if isinstance(done.exception, ConfigError):
        assert done.exception.exit_code == status, done.exception
        return str(done.exception)
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


def test_the_orchestrator_is_handed_retrain_with_its_time_and_told_of_every_change(cluster: Path) -> None:
    from zenml.client import Client

    file = stack(cluster, "recording")
    assert "UTC" in run("create", "functions", "--cron", "0 3 * * *", "--stack", file, "--tz", "Asia/Tokyo", status=2)
    assert "schedule of stack" in run("create", "functions", "--cron", "0 3 * * *", "--stack", file)
    (handed,) = notes(cluster)
    assert (handed["submitted"], handed["cron"], handed["catchup"]) == ("retrain", "0 3 * * *", False)
    assert {"collect", "train_adapter", "register"} <= set(handed["steps"])
    assert "starts its nights" in run("run", "functions", status=2)
    assert json.loads(run("log", "functions")) == []
    run("pause", "functions")
    assert not Client().get_schedule("pocketloop-functions").active
    run("resume", "functions")
    run("delete", "functions")
    told = notes(cluster)[1:]
    assert told == [
        {"updated": "pocketloop-functions", "active": False},
        {"updated": "pocketloop-functions", "active": True},
        {"deleted": "pocketloop-functions"},
    ]
    assert not Client().list_schedules(name="pocketloop-functions").items


def test_one_that_cannot_change_its_schedules_says_what_is_left_to_do(cluster: Path) -> None:
    run("create", "functions", "--cron", "0 3 * * *", "--stack", stack(cluster, "unchanging"))
    assert "pauses and resumes schedules only in its own pages" in run("pause", "functions", status=2)
    assert "delete the recurring run of pocketloop-functions" in run("delete", "functions")


def test_kubeflow_is_given_compiled_files_and_neither_runs_nor_schedules(cluster: Path) -> None:
    from pocketloop.cli.running import run_pipeline

    file = stack(cluster, "kubeflow")
    said = run("create", "functions", "--cron", "0 3 * * *", "--stack", file, status=2)
    assert f"`pocketloop compile PIPELINE ADAPTER --stack {file} --cron '0 3 * * *'`" in said
    with pytest.raises(ConfigError, match="Kubeflow runs compiled files"):
        run_pipeline(lambda: pytest.fail("started"), file)
    assert "no schedule" in run("list")


def test_a_cluster_that_does_not_answer_leaves_no_schedule_behind(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zenml.client import Client

    monkeypatch.setenv("RECORDING_FAILS", "1")
    file = stack(cluster, "recording")
    said = run("create", "functions", "--cron", "0 3 * * *", "--stack", file, status=2)
    assert "did not take the schedule: ConnectionError: no cluster answers" in said
    assert not Client().list_schedules(name="pocketloop-functions").items
    assert "no schedule" in run("list")


def test_the_stacks_alerter_is_told_of_a_failed_night(cluster: Path) -> None:
    from pocketloop.cli.nightly import channels_of, words

    now = datetime(2026, 11, 2, 3, tzinfo=UTC)
    values = {"adapter": "functions", "recipe": "functions", "cron": "0 3 * * *", "tz": "UTC", "if_new": 1}
    schedule = Schedule.model_validate(
        {**values, "stack": stack(cluster, "recording"), "starter": "crontab", "since": now}
    )
    night = Night(
        due=now, started=now, pid=1, outcome=Outcome(result="failed", step="scrub", reason="no disk", more="x")
    )
    assert channels_of(schedule)["alerter"]("functions", night) == ""
    assert notes(cluster) == [{"alert": words("functions", night)}]
    broken = schedule.model_copy(update={"stack": str(cluster / "none.yaml")})
    assert "could not be told: ConfigError" in channels_of(broken)["alerter"]("functions", night)
