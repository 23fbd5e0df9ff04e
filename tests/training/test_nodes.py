"""Two machines that share a home: here two commands on this one, which meet on loopback."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import settings, tiny_base, train

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import sha256_tree
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import Resources, TrainConfig
from pocketloop.training import nodes
from pocketloop.training.nodes import find_place, offer

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return tiny_base(tmp_path_factory.mktemp("bases") / "llama", "llama")


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLOOP_NODE_ADDRESS", "127.0.0.1")


def over(count: int, processes: int = 2) -> TrainConfig:
    return settings(epochs=2).model_copy(update={"resources": Resources(processes=processes, nodes=count)})


def lend_a_machine(home: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "POCKETLOOP_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([POCKETLOOP, "train-node", *options], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_machines_learn_what_two_processes_of_one_learn(base: BaseConfig, tmp_path: Path) -> None:
    train(base, tmp_path / "one-machine", over(1))
    out = tmp_path / "home" / "training" / "functions" / "adapter"
    out.parent.mkdir(parents=True)
    with lend_a_machine(tmp_path / "home", "--once") as other:
        report = train(base, out, over(2))
        said, _ = other.communicate(timeout=600)
    assert other.returncode == 0, said
    assert "as machine 2 of 2" in said
    assert report.stages[0].steps > 0
    assert sha256_tree(out) == sha256_tree(tmp_path / "one-machine")
    assert not list(out.parent.glob(".*.job"))


@pytest.mark.slow
def test_a_run_that_no_machine_joins_ends_with_the_command_that_is_missing(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "JOIN_SECONDS", 3.0)
    notes: list[str] = []
    with pytest.raises(ModelError, match="1 came within .* run `pocketloop train-node` on the others"):
        train(base, tmp_path / "adapter", over(2), on_progress=lambda progress: notes.append(str(progress)))
    assert any("waiting for 1 more machine" in note for note in notes)


def test_processes_are_spread_evenly_over_machines() -> None:
    with pytest.raises(ValueError, match="processes 3 cannot be spread evenly over nodes 2"):
        Resources(processes=3, nodes=2)


def test_what_a_killed_run_left_behind_is_passed_over_and_a_place_is_taken_once(tmp_path: Path) -> None:
    job = tmp_path / "functions" / ".work.x.job"
    job.mkdir(parents=True)
    meeting = offer(job, 2)
    assert find_place(tmp_path) is None
    with socket.create_server((meeting.address, meeting.port)):
        assert find_place(tmp_path) == (job, meeting, 1)
        assert find_place(tmp_path) is None


def test_a_lent_machine_is_taken_back_by_sigterm(tmp_path: Path) -> None:
    with lend_a_machine(tmp_path) as other:
        assert other.stdout is not None and "waiting for training runs" in other.stdout.readline()
        other.send_signal(signal.SIGTERM)
        assert other.wait(timeout=300) == 0
