"""`pocketloop schedule` and `retrain --if-new` as a person meets them; no pipeline is run here."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import Fleet
from timer_programs import install_programs

from pocketloop.contracts.home import Home
from pocketloop.data.news import Seen, example_files_now, write_seen
from pocketloop.schedules.holding import held


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet(tmp_path / "home")
    fleet.environment |= {**install_programs(tmp_path, systemd=False), "POCKETLOOP_NOTIFY": ""}
    return fleet


def learnt_everything(fleet: Fleet) -> None:
    """As a finished run of the shipped recipe leaves it, for a log that holds nothing."""
    from pocketloop.contracts.loading import load_recipe

    write_seen(fleet.home, "functions", Seen(examples=example_files_now(load_recipe("functions"))))


def crontab(fleet: Fleet) -> str:
    file = fleet.home.root.parent / "crontab.txt"
    return file.read_text() if file.is_file() else ""


def test_a_schedule_is_made_shown_paused_resumed_and_removed(fleet: Fleet) -> None:
    printed = fleet.run("schedule", "create", "functions", "--cron", "0 3 * * *", "--if-new", "50", "--tz", "UTC")
    assert "functions: created; next night" in printed
    assert crontab(fleet).count("schedule run functions") == 2
    (listed,) = json.loads(fleet.run("schedule", "list", "--json"))
    assert (listed["cron"], listed["if_new"], listed["starter"], listed["last"]) == ("0 3 * * *", 50, "crontab", None)
    assert "changed" in fleet.run("schedule", "create", "functions", "--cron", "30 2 * * *", "--tz", "UTC")
    assert crontab(fleet).count("30 2 * * *" if "30 2" in crontab(fleet) else "0,15,30,45 * * * *") == 1
    assert "no night yet" in fleet.run("schedule", "log", "functions")
    fleet.run("schedule", "pause", "functions")
    assert crontab(fleet) == ""
    assert "paused" in fleet.run("schedule", "list")
    later = (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%S")
    assert "functions: paused" in fleet.run("schedule", "run", "functions", "--as-of", later)
    fleet.run("schedule", "resume", "functions")
    assert "is not paused" in fleet.run("schedule", "resume", "functions", status=2)
    assert "schedule run functions" in crontab(fleet)
    fleet.run("schedule", "delete", "functions")
    assert crontab(fleet) == ""
    assert "functions has no schedule" in fleet.run("schedule", "run", "functions", status=2)


def test_a_wrong_expression_is_one_line_with_an_example(fleet: Fleet) -> None:
    said = fleet.run("schedule", "create", "functions", "--cron", "0 3 * *", status=2)
    assert said == (
        "error: cron '0 3 * *': expected minute, hour, day, month, weekday; --cron \"0 3 * * *\" is every night at 3\n"
    )
    assert crontab(fleet) == ""


def test_a_recipe_in_a_file_is_named_by_its_absolute_path(fleet: Fleet, tmp_path: Path) -> None:
    from pocketloop.contracts.home import project_root

    text = (project_root() / "configs" / "adapters" / "functions.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("adapter: functions", "adapter: mine"))
    subprocess.run(
        [Path(sys.executable).with_name("pocketloop"), "schedule", "create", "mine.yaml", "--cron", "0 3 * * *"],
        cwd=tmp_path, env=fleet.environment, check=True, capture_output=True,
    )  # fmt: skip
    (listed,) = json.loads(fleet.run("schedule", "list", "--json"))
    assert listed["recipe"] == str(tmp_path / "mine.yaml")
    assert f"cd {tmp_path} && POCKETLOOP_HOME={fleet.home.root} " in crontab(fleet)


def test_a_quiet_night_is_logged_and_loads_no_zenml(fleet: Fleet) -> None:
    learnt_everything(fleet)
    fleet.run("schedule", "create", "functions", "--cron", "* * * * *", "--tz", "UTC")
    soon = f"{datetime.now(UTC) + timedelta(minutes=2):%Y-%m-%dT%H:%M:%S}"
    script = (
        "import sys; from pocketloop.cli.main import app\n"
        f"app(['schedule', 'run', 'functions', '--as-of', '{soon}'],"
        " standalone_mode=False)\n"
        "print(sorted(name for name in ('zenml', 'mlflow', 'torch') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=fleet.environment, text=True, capture_output=True, check=True
    )
    assert "nothing new (0 examples)" in done.stdout
    assert done.stdout.endswith("[]\n")
    (night,) = json.loads(fleet.run("schedule", "log", "functions", "--json"))
    assert (night["outcome"]["result"], night["outcome"]["new"], night["untold"]) == ("nothing new", 0, [])
    assert "0 new examples (0 events, 0 in example files)" in fleet.run("schedule", "log", "functions", "--output")


def test_retrain_with_too_little_new_says_how_much_there_is_and_does_nothing(fleet: Fleet) -> None:
    learnt_everything(fleet)
    fleet.run("data", "demo", "--events", "60")
    printed = fleet.run("retrain", "functions", "--if-new", "5000")
    assert printed.count("\n") == 1
    assert "new examples (" in printed and "5000 are asked for; nothing is done" in printed
    assert not fleet.home.zenml.exists()


@pytest.mark.parametrize("command", ["retrain", "train", "curate"])
def test_a_run_by_hand_waits_for_nobody(fleet: Fleet, command: str) -> None:
    with held(fleet.home, "functions", "pocketloop schedule run functions"):
        said = fleet.run(command, "functions", status=75)
    assert "functions is taken by process" in said
    assert "(`pocketloop schedule run functions`) since 20" in said


def test_a_night_that_finds_the_adapter_taken_says_so_with_status_75(fleet: Fleet) -> None:
    fleet.run("schedule", "create", "functions", "--cron", "0 3 * * *")
    with held(fleet.home, "functions", "pocketloop train functions"):
        said = fleet.run("schedule", "run", "functions", "--now", status=75)
    assert "skipped: functions is taken by process" in said
    assert "skipped" in fleet.run("schedule", "log", "functions")


def test_variables_of_the_nights_come_from_a_file_that_only_the_owner_reads(fleet: Fleet) -> None:
    fleet.run("schedule", "create", "functions", "--cron", "0 3 * * *")
    file = Home(fleet.home.root).schedules / "environment"
    file.write_text("# for nights\nA_TOKEN=secret=1\n")
    file.chmod(0o644)
    assert "chmod 600" in fleet.run("schedule", "run", "functions", status=2)
    file.chmod(0o600)
    fleet.run("schedule", "run", "functions")
    file.write_text("no equals sign\n")
    file.chmod(0o600)
    assert "environment:1: expected NAME=value" in fleet.run("schedule", "run", "functions", status=2)
