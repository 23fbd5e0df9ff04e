import json
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from sample_blocks import Count, Square, Write

from pocketloop.blocks.run import run_blocks
from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.errors import DataError

HERE = ComputeConfig(workers=1)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]


def squares(out: Path) -> list[int]:
    return sorted(number for said in written(out) for number in said["squares"])


def test_one_worker_runs_every_task_in_this_process_and_says_nothing(
    tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_blocks([Count(10), Square(), Write(out)], 3, HERE, tmp_path / "work")
    assert squares(out) == [n * n for n in range(10)]
    assert {said["pid"] for said in written(out)} == {os.getpid()}
    assert capfd.readouterr() == ("", "")


def test_several_workers_are_other_processes_and_the_result_is_the_same(
    tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_blocks([Count(10), Square(), Write(out)], 3, ComputeConfig(workers=2), tmp_path / "work")
    assert squares(out) == [n * n for n in range(10)]
    assert os.getpid() not in {said["pid"] for said in written(out)}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_block_is_heard_and_the_next_run_does_only_what_is_missing(
    tmp_path: Path, out: Path, workers: int
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    pipeline, compute = [Count(4), Square((3,), broken), Write(out)], ComputeConfig(workers=workers)
    with pytest.raises(DataError, match="this number is refused") as caught:
        run_blocks(pipeline, 4, compute, tmp_path / "work")
    assert caught.value.__notes__ == ["in task 4 of 4"]
    broken.unlink()
    for done in out.glob("*.json"):
        done.unlink()
    run_blocks(pipeline, 4, compute, tmp_path / "work")
    assert squares(out) == [9]
    run_blocks(pipeline, 4, compute, tmp_path / "work")
    assert squares(out) == [9]


def test_a_worker_that_is_killed_does_not_leave_the_run_waiting_for_it(tmp_path: Path, out: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    pipeline = [Count(4), Square((1,), broken, how="kill"), Write(out)]
    with pytest.raises(BrokenProcessPool):
        run_blocks(pipeline, 2, ComputeConfig(workers=2), tmp_path / "work")
    broken.unlink()
    run_blocks(pipeline, 2, ComputeConfig(workers=2), tmp_path / "work")
    assert squares(out) == [0, 1, 4, 9]


def test_nothing_to_do_is_no_mistake(tmp_path: Path) -> None:
    run_blocks([Count(0)], 0, HERE, tmp_path / "work")
    assert not (tmp_path / "work").exists()
