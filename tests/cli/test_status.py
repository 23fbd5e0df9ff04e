"""The status page: what it says of every state, in which order, and that nothing that lies in a home breaks it."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_candidates import register_sample

from pocketloop.cli.runs import RunRecord, is_alive, note_result, read_runs, recorded
from pocketloop.cli.standing import Climbing, Run, Standing, Waiting, ago, lines, next_steps, size, span
from pocketloop.cli.standing_facts import folder_sizes, read_standing
from pocketloop.contracts.errors import DataError, TrainingInterrupted, note_stage
from pocketloop.contracts.home import Home
from pocketloop.contracts.schedules import Schedule
from pocketloop.schedules.store import ScheduleStore

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))


def standing(**facts: object) -> Standing:
    return Standing(**{"at": NOW, "home": ".pocketloop", "exists": True, **facts})


def candidate(verdict: str = "pass", said: str = "", approved: bool = False, adapter: str = "functions") -> Waiting:
    return Waiting(
        adapter=adapter,
        version="2",
        verdict=verdict,
        registered=NOW - timedelta(hours=2),
        said=said,
        merged=False,
        approved=approved,
    )


def run(outcome: str = "finished", alive: bool = False, pipeline: str = "retrain", stage: str = "") -> Run:
    ended = None if outcome == "running" else NOW - timedelta(hours=1)
    record = RunRecord(
        pipeline=pipeline,
        subject="functions",
        started=NOW - timedelta(hours=2),
        ended=ended,
        outcome=outcome,
        stage=stage,
        pid=1,
    )
    return Run(record=record, alive=alive)


def rollout() -> Climbing:
    return Climbing(
        rollout="functions-1",
        adapter="functions",
        version="2",
        rung=2,
        rungs=4,
        percent=5,
        since=NOW - timedelta(hours=3),
        may_widen=NOW + timedelta(hours=21),
        looked=NOW - timedelta(minutes=30),
        said="too few devices yet",
    )


APPROVED = candidate(said="accepted as functions.released@1", approved=True)
STATES = {
    "a fresh machine": (standing(exists=False), ["make run", "pocketloop data import FILE", "pocketloop new NAME"]),
    "events and no release": (
        standing(events=9, new_events={"intent": 2, "functions": 7}),
        ["pocketloop retrain functions", "pocketloop retrain intent"],
    ),
    "a run that failed": (standing(runs=[run("failed", stage="train")]), ["pocketloop retrain functions"]),
    "a run that was killed": (standing(runs=[run("running")]), ["pocketloop retrain functions"]),
    "a run that goes on, and new events": (
        standing(events=9, new_events={"functions": 3}, runs=[run("running", alive=True)]),
        ["pocketloop status"],
    ),
    "a failure that was made good": (
        standing(runs=[run("finished"), run("failed", pipeline="curate")], candidates=[candidate()]),
        ["pocketloop review show functions@2"],
    ),
    "a candidate that did not pass": (
        standing(candidates=[candidate("inconclusive")], runs=[run()]),
        ["pocketloop gates explain functions@2"],
    ),
    "a candidate that was rejected": (standing(candidates=[candidate(said="rejected: no")]), ["pocketloop ui"]),
    "an approval without a repository": (standing(candidates=[APPROVED]), ["pocketloop cdn init"]),
    "an approval": (standing(candidates=[APPROVED], repository=True), ["pocketloop promote functions"]),
    "an approval while another version climbs": (
        standing(candidates=[APPROVED], repository=True, rollouts=[rollout()]),
        ["pocketloop watch"],
    ),
    "signatures are missing": (
        standing(candidates=[candidate(said="accepted as functions.released@1")], signatures=True, repository=True),
        ["pocketloop cdn proposal"],
    ),
    "a registry on a server": (standing(registry="http://mlflow.example"), ["pocketloop review list"]),
}


@pytest.mark.parametrize("name", STATES)
def test_each_state_leads_to_the_commands_that_fit_it(name: str) -> None:
    now, expected = STATES[name]
    found = [step.command for step in next_steps(now)]
    assert len(found) == len(expected)
    assert all(command.startswith(start) for command, start in zip(found, expected, strict=True)), found


FACTS = st.fixed_dictionaries(
    {
        "events": st.integers(0, 10**9),
        "new_events": st.dictionaries(st.sampled_from(["functions", "intent"]), st.integers(0, 10**6)),
        "runs": st.lists(
            st.builds(
                run,
                st.sampled_from(["running", "finished", "failed", "interrupted"]),
                st.booleans(),
                st.sampled_from(["retrain", "train", "curate", "promote", "watch"]),
            ),
            max_size=9,
        ),
        "candidates": st.lists(
            st.builds(candidate, st.sampled_from(["pass", "fail"]), st.sampled_from(["", "rejected: x"]), st.booleans())
        ),
        "rollouts": st.lists(st.builds(rollout), max_size=2),
        "signatures": st.booleans(),
        "repository": st.booleans(),
        "doubts": st.lists(st.text(max_size=20), max_size=9),
    }
)


@given(FACTS)
def test_every_state_has_a_page_and_one_to_three_different_next_commands(facts: dict[str, object]) -> None:
    now = standing(**facts)
    commands = [step.command for step in next_steps(now)]
    assert 1 <= len(commands) == len(set(commands)) <= 3
    page = lines(now)
    assert page[0][0] == "state"
    assert [label for label, _ in page if label].count("next") == 1


def test_the_page_says_what_a_reader_asks() -> None:
    now = standing(
        sizes={"artifacts": 2 * 10**6, "bases": 10**7},
        events=6877,
        new_events={"functions": 120},
        releases={"functions": "a" * 64},
        runs=[run("failed", stage="train"), run("running", alive=True, pipeline="watch")],
        candidates=[candidate()],
        rollouts=[rollout()],
        doubts=["registry: file is not a database"],
    )
    page = "\n".join(f"{label}|{text}" for label, text in lines(now))
    assert "state|.pocketloop: 12.0 MB (bases 10.0 MB, artifacts 2.0 MB)" in page
    assert "events|6,877 in the log; since the newest release: functions 120" in page
    assert "runs|retrain functions: failed 1 h ago, after 1 h, in stage train" in page
    assert "|watch functions: running since 2 h ago (process 1)" in page
    assert "review|functions@2: pass, waits for a reviewer; registered 2 h ago" in page
    assert "rollouts|functions@2: rung 2 of 4 (5 %) since 3 h; may widen from 2026-11-22 09:00 UTC on;" in page
    assert "last look 30 min ago: too few devices yet" in page
    assert "doubtful|registry: file is not a database" in page


@given(st.timedeltas(), st.integers(0, 10**15))
def test_lengths_and_sizes_are_a_number_and_a_unit(length: timedelta, count: int) -> None:
    assert span(length).split()[1] in ("s", "min", "h", "d")
    assert float(size(count).split()[0]) >= 0
    assert ago(NOW, NOW) == "just now"


def test_a_run_is_remembered_with_how_it_ended_and_where(home: Path) -> None:
    place = Home()
    with recorded(place, "retrain", "functions"):
        assert is_alive(read_runs(place)[0])
    note_result(place, "retrain", "functions", "functions@1, verdict pass")
    with pytest.raises(KeyError), recorded(place, "train", "intent"):
        error = KeyError("what a user said")
        note_stage(error, "label")
        raise error
    newest, oldest = read_runs(place)
    assert (newest.outcome, newest.stage, newest.error) == ("failed", "label", "KeyError")
    assert "what a user said" not in (place.runs / "train-intent.json").read_text()
    assert (oldest.outcome, oldest.result) == ("finished", "functions@1, verdict pass")


def test_training_that_was_told_to_end_was_interrupted(home: Path) -> None:
    with pytest.raises(TrainingInterrupted), recorded(Home(), "train", "intent"):
        raise TrainingInterrupted("saved at step 3")
    assert read_runs(Home())[0].outcome == "interrupted"


def test_a_run_that_was_killed_is_seen_as_such(home: Path) -> None:
    program = (
        "import os, signal; from pocketloop.cli.runs import recorded; from pocketloop.contracts.home import Home\n"
        "with recorded(Home(), 'retrain', 'functions'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (found,) = read_standing(Home(), datetime.now(UTC)).runs
    assert found.killed
    assert "was killed" in dict(lines(standing(runs=[found])))["runs"]


def test_the_registry_at_a_glance_is_what_mlflow_says(home: Path, tmp_path: Path) -> None:
    from pocketloop.registry.glance import glance
    from pocketloop.registry.mlflow_store import candidates, client
    from pocketloop.registry.review import approve, prepared_bases, reject, review, standing, waiting

    place = Home()
    for number in range(4):
        register_sample(place, tmp_path / str(number), f"content {number}")
    register_sample(place, tmp_path / "other", "other", adapter="intent")

    def agree() -> None:
        found = glance(place)
        assert found is not None
        assert sorted(found.candidates, key=lambda c: (c.adapter, c.version)) == sorted(
            candidates(place), key=lambda c: (c.adapter, c.version)
        )
        assert found.standing == {name: standing(place, name) for name in ("functions", "intent")}
        assert found.waiting == waiting(place)

    agree()
    assert not prepared_bases(place)
    approve(place, "functions", "1")
    reject(place, "functions", "2", "calls the wrong contact")
    agree()
    review(place, "functions")
    agree()
    client(place).delete_model_version("functions", "4")
    agree()
    assert [one.name for one in read_standing(place, datetime.now(UTC)).candidates] == ["intent@1", "functions@3"]


def damage_registry(home: Path) -> None:
    (home / "mlflow.db").write_bytes(b"not a database, but a file of somebody's")


def damage_foreign_registry(home: Path) -> None:
    sqlite3.connect(home / "mlflow.db").execute("CREATE TABLE something (else_ TEXT)").connection.commit()


def damage_events(home: Path) -> None:
    (home / "events").mkdir()
    (home / "events" / "log.sqlite").write_bytes(b"nothing of ours" * 100)


def damage_rollouts(home: Path) -> None:
    (home / "rollouts").mkdir()
    (home / "rollouts" / "functions-1.json").write_text('{"half": ')


def damage_bases(home: Path) -> None:
    (home / "bases" / "0abc").mkdir(parents=True)
    (home / "bases" / "0abc" / "manifest.json").write_text("[]")


def damage_releases(home: Path) -> None:
    (home / "releases").mkdir()
    (home / "releases" / "latest-functions.json").write_text("{}")


def damage_runs(home: Path) -> None:
    (home / "runs").mkdir()
    (home / "runs" / "retrain-functions.json").write_bytes(b"\xff\xfe")


def damage_schedules(home: Path) -> None:
    (home / "schedules" / "functions").mkdir(parents=True)
    (home / "schedules" / "functions" / "schedule.json").write_text("[1]")


def test_schedules_are_named_with_their_times(home: Path) -> None:
    for adapter, paused in (("functions", False), ("intent", True)):
        record = {"adapter": adapter, "recipe": adapter, "cron": "0 3 * * *", "tz": "UTC", "if_new": 1, "since": NOW}
        ScheduleStore(Home()).put(Schedule.model_validate({**record, "starter": "crontab", "paused": paused}))
    shown = [text for _, text in lines(read_standing(Home(), NOW))]
    assert {"functions: 0 3 * * *", "intent: 0 3 * * * (paused)"} <= set(shown)


@pytest.mark.parametrize(
    "damage",
    [
        damage_registry,
        damage_foreign_registry,
        damage_events,
        damage_rollouts,
        damage_bases,
        damage_releases,
        damage_runs,
        damage_schedules,
    ],
)
def test_what_is_damaged_is_one_line_and_the_rest_is_shown(home: Path, damage: object) -> None:
    damage(home)
    found = read_standing(Home(), NOW)
    assert len(found.doubts) == 1
    assert "\n" not in found.doubts[0]
    assert {label for label, _ in lines(found)} >= {"state", "doubtful", "next"}


def test_a_fresh_home_is_told_how_to_start_and_stays_absent(absent_home: Path) -> None:
    environment = {**os.environ, "POCKETLOOP_HOME": str(absent_home)}
    shown = subprocess.run([POCKETLOOP], env=environment, capture_output=True, text=True, check=True).stdout
    assert "nothing here yet" in shown
    assert "make run" in shown
    assert not absent_home.exists()
    said = subprocess.run([POCKETLOOP, "status", "--json"], env=environment, capture_output=True, check=True).stdout
    assert json.loads(said)["next"][0]["command"] == "make run"


def test_the_page_imports_neither_zenml_nor_mlflow(home: Path, tmp_path: Path) -> None:
    register_sample(Home(), tmp_path / "bundle", "content")
    program = (
        "import sys; from pocketloop.cli.main import main; sys.argv[1:] = []\n"
        "try: main()\nexcept SystemExit as end: status = end.code\n"
        "heavy = {'torch', 'transformers', 'zenml', 'mlflow', 'pandas', 'numpy', 'tuf'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "functions@1: pass, waits for a reviewer" in done.stdout


def test_sizes_count_files_and_follow_no_links(tmp_path: Path) -> None:
    root = tmp_path / "home"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(b"x" * 1000)
    (root / "c").write_bytes(b"y")
    (root / "a" / "loop").symlink_to(root)
    assert folder_sizes(root) == ({"a": 1000, "c": 1}, False)
    shutil.rmtree(root / "a")
    assert folder_sizes(root) == ({"c": 1}, False)


def test_a_record_that_cannot_be_read_names_its_file(home: Path) -> None:
    Home().runs.mkdir(parents=True)
    (Home().runs / "train-x.json").write_text(str(time.time()))
    with pytest.raises(DataError, match="train-x.json"):
        read_runs(Home())
