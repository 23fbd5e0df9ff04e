"""Real processes are killed in the middle of training, and run again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preference_runs import pairs, rated
from tinymodels import save_tiny_model
from training_runs import INTENT, examples, settings, tiny_base, train

from pocketloop.contracts.files import sha256_tree
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import Checkpoints, TrainConfig
from pocketloop.training.checkpoints import fix_data_order, latest_checkpoint
from pocketloop.training.progress import Progress
from pocketloop.training.run import train_adapter
from pocketloop.training.selection import evaluates_after
from pocketloop.training.stage import Split, TrainingData

HERE = Path(__file__).resolve().parent
_RUN = """
import sys
from pathlib import Path
from pocketloop.contracts.errors import PocketloopError
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import TrainConfig
from training_runs import train

base, training, out = BaseConfig.model_validate_json(sys.argv[1]), sys.argv[2], Path(sys.argv[3])


def say(progress):
    print(progress, flush=True)
    if sys.argv[4] in str(progress):
        sys.stdin.readline()  # until the signal was sent, however late that is


try:
    train(base, out, TrainConfig.model_validate_json(training), on_progress=say, every_seconds=0)
except PocketloopError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return tiny_base(tmp_path_factory.mktemp("bases") / "llama", "llama")


def two_stages() -> TrainConfig:
    """Dropout, so that random numbers matter, and held-out data scored in the middle of epochs, too."""
    stage = {"learning_rate": 2e-3, "batch_size": 8, "max_length": 64, "evaluations": 2}
    return TrainConfig.model_validate(
        {
            "lora": {"r": 4, "alpha": 8, "dropout": 0.3},
            "stages": [{"sft": {**stage, "epochs": 1}}, {"sft": {**stage, "epochs": 3}}],
            "checkpoints": {"every_seconds": 0.0, "keep": 2},
            "seed": 3,
        }
    )


def run_apart(base: BaseConfig, training: TrainConfig, out: Path, line: str) -> subprocess.Popen[str]:
    """A run that stops at the progress that says `line`, until its input ends."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    arguments = [sys.executable, "-c", _RUN, base.model_dump_json(), training.model_dump_json(), str(out), line]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if line in said:
            return
    raise AssertionError(f"the run ended before it said {line!r}")


@pytest.fixture(scope="module")
def uninterrupted(base: BaseConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "adapter"
    train(base, out, two_stages())
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("number", "line"), [(signal.SIGKILL, "step 3/4"), (signal.SIGTERM, "step 7/12")])
def test_a_killed_run_goes_on_to_the_weights_of_one_that_was_not(
    base: BaseConfig, uninterrupted: Path, tmp_path: Path, number: signal.Signals, line: str
) -> None:
    training = two_stages()
    out = tmp_path / "adapter"
    run = run_apart(base, training, out, line)
    wait_for(run, line)  # SIGKILL in the first stage, SIGTERM in the second
    run.send_signal(number)
    said = run.communicate()[0]
    assert run.returncode == (-9 if number == signal.SIGKILL else 143)
    assert number == signal.SIGKILL or "run the same again, and training goes on from there" in said
    work = tmp_path / "adapter-work"
    assert not out.exists()
    assert 1 <= len(list(work.glob("*/checkpoints/checkpoint-*/state.json"))) <= training.checkpoints.keep + 1
    notes: list[str] = []
    train(base, out, training, on_progress=lambda progress: notes.append(str(progress)), every_seconds=0)
    assert sum("going on at step" in note for note in notes) == 1
    assert ("train.stages.0.sft: finished before, kept" in notes) == (number == signal.SIGTERM)
    assert sha256_tree(out) == sha256_tree(uninterrupted)
    for stage in ("0-sft", "1-sft"):
        before = uninterrupted.with_name("adapter-work")
        ours, theirs = (json.loads((folder / stage / "report.json").read_text()) for folder in (work, before))
        assert ours["curves"]["validation_loss"] == theirs["curves"]["validation_loss"]
        for counted in ("steps", "tokens", "examples", "best_step"):
            assert ours[counted] == theirs[counted]


class Ended(Exception):
    """The run ended here, as if it had been killed."""


def end_at(share: float, number: int = 0) -> Callable[[Progress], None]:
    """Ends the run at that share of the steps of stage `number`."""
    stages: list[int] = []

    def end(progress: Progress) -> None:
        stages.append(progress.step)
        begun = sum(later < earlier for earlier, later in pairwise(stages))
        if begun == number and not progress.note and progress.step >= share * progress.steps:
            raise Ended

    return end


def interrupted(base: BaseConfig, out: Path, training: TrainConfig, share: float, **more: Any) -> None:
    """Train up to `share` of the first stage's steps, in this process, as if it was killed there."""
    with pytest.raises(Ended):
        train(base, out, training, on_progress=end_at(share), every_seconds=0, **more)


def often(training: TrainConfig) -> TrainConfig:
    return training.model_copy(update={"checkpoints": Checkpoints(every_seconds=0)})


@pytest.mark.parametrize("method", ["adalora", "dora", "qlora"])
def test_every_kind_of_adapter_goes_on_where_it_stood(base: BaseConfig, tmp_path: Path, method: str) -> None:
    training = often(settings({"method": method, "r": 2, "dropout": 0.2}, epochs=4))
    whole = train(base, tmp_path / "whole", training)
    interrupted(base, tmp_path / "again", training, 0.6)
    notes: list[str] = []
    again = train(base, tmp_path / "again", training, on_progress=lambda progress: notes.append(str(progress)))
    assert notes[0].startswith("train.stages.0.sft: going on at step ")
    assert sha256_tree(tmp_path / "again") == sha256_tree(tmp_path / "whole")
    assert (again.ranks, again.tokens) == (whole.ranks, whole.tokens)


def test_a_checkpoint_that_a_kill_left_half_written_is_never_used(tmp_path: Path) -> None:
    for step, whole in [(5, True), (12, True), (20, False)]:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        if whole:
            (folder / "state.json").write_text("{}")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert not (tmp_path / "checkpoint-20").exists()
    assert latest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("change", ["data", "recipe", "base"])
def test_what_another_input_left_in_the_work_folder_is_not_gone_on_from(
    base: BaseConfig, tmp_path: Path, change: str
) -> None:
    training = often(settings(epochs=1))
    interrupted(base, tmp_path / "adapter", training, 0.5)
    other = training.model_copy(update={"seed": 5}) if change == "recipe" else training
    folder = save_tiny_model(tmp_path / "other", "llama", layers=2, seed=1)
    changed = base.model_copy(update={"source": str(folder)}) if change == "base" else base
    count = 24 if change == "data" else 32
    said: list[str] = []
    train(changed, tmp_path / "adapter", other, count, on_progress=lambda progress: said.append(str(progress)))
    assert not any("going on" in line for line in said)
    train(changed, tmp_path / "fresh", other, count)
    assert sha256_tree(tmp_path / "adapter") == sha256_tree(tmp_path / "fresh")


def test_how_often_states_are_saved_changes_nothing_and_what_lies_around_is_bounded(
    base: BaseConfig, tmp_path: Path
) -> None:
    training = settings(epochs=1)
    train(base, tmp_path / "seldom", training)
    train(base, tmp_path / "often", often(training))
    assert sha256_tree(tmp_path / "seldom") == sha256_tree(tmp_path / "often")
    assert not list((tmp_path / "often-work").glob("*/checkpoints"))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=150), st.integers(1, 8), st.integers(0, 5))
def test_batches_of_like_lengths_come_in_an_order_of_seed_and_epoch_alone(
    lengths: list[int], batch: int, epoch: int
) -> None:
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    trainer = SimpleNamespace(_get_train_sampler=lambda: LengthGroupedSampler(batch, lengths=lengths))
    fix_data_order(trainer, 3)

    def order(at: int) -> list[int]:
        torch.rand(1)  # whatever else is drawn
        sampler = trainer._get_train_sampler()
        sampler.set_epoch(at)
        return list(sampler)

    once = order(epoch)
    assert sorted(once) == list(range(len(lengths)))
    assert once == order(epoch)
    assert len(lengths) < batch or max(lengths) in [lengths[index] for index in once[:batch]]
    if len(set(lengths)) > 8 and len(lengths) > 16 * batch:
        firsts = [lengths[index] for index in once[::batch]]
        assert firsts != sorted(firsts, reverse=True)
        assert once != order(epoch + 1)


def test_held_out_data_is_scored_evenly_and_at_the_end() -> None:
    scored = [step for step in range(1, 26) if evaluates_after(step, 25, 10, 3)]
    assert scored == [4, 7, 10, 14, 17, 20, 24, 25]
    assert [step for step in range(1, 4) if evaluates_after(step, 3, 3, 50)] == [1, 2, 3]


def test_nothing_but_the_weights_and_their_config_leaves_the_work_folder(base: BaseConfig, tmp_path: Path) -> None:
    interrupted(base, tmp_path / "adapter", often(settings(epochs=1)), 0.7)
    (checkpoint, *_) = (tmp_path / "adapter-work").glob("0-sft/checkpoints/checkpoint-*")
    assert not (checkpoint / "training_args.bin").exists()
    assert not (tmp_path / "adapter").exists()


DATA = TrainingData(
    Split(examples(32), pairs(32), rated(32)), Split(examples(8, 32), pairs(8, offset=32), rated(8, offset=32))
)
_SHORT = {"batch_size": 8, "max_length": 64, "learning_rate": 1e-3}
_ONLINE = {**_SHORT, "max_new_tokens": 6, "max_kl": 1e6, "samples": 4, "epochs": 2, "prompts": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage",
    [
        {"dpo": {**_SHORT, "epochs": 2}},
        {"kto": {**_SHORT, "epochs": 2}},
        {"reward": {**_SHORT, "epochs": 2}},
        {"grpo": _ONLINE},
        {"rloo": _ONLINE},
    ],
    ids=lambda stage: next(iter(stage)),
)
def test_every_kind_of_stage_goes_on_where_it_stood(base: BaseConfig, tmp_path: Path, stage: dict[str, Any]) -> None:
    """Interrupted in the middle of the second epoch."""
    shape = {"r": 4, "alpha": 8, "dropout": 0.2}
    training = TrainConfig.model_validate(
        {"lora": shape, "stages": [{"sft": {**_SHORT, "epochs": 1}}, stage], "checkpoints": {"every_seconds": 0}}
    )
    number = 1
    if "reward" in stage:
        number, training = 0, training.model_copy(update={"stages": training.stages[::-1]})

    def run(out: Path, on_progress: Any) -> None:
        work = out.with_name(f"{out.name}-work")
        train_adapter(base, DATA, INTENT, training, out, work, on_progress, every_seconds=0)

    run(tmp_path / "whole", lambda progress: None)
    with pytest.raises(Ended):
        run(tmp_path / "again", end_at(0.7, number))
    notes: list[str] = []
    run(tmp_path / "again", lambda progress: notes.append(progress.note))
    assert sum(f"{next(iter(stage))}: going on at step" in note for note in notes) == 1
    for kept in ("again", "again-work/1-" + training.stages[1].name + "/after", "again-work/0-reward/reward_model"):
        if (tmp_path / kept).exists():
            assert sha256_tree(tmp_path / kept) == sha256_tree(tmp_path / kept.replace("again", "whole"))
