"""One run of an adapter at a time, and no lock outlives its holder."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pocketloop.contracts.errors import AdapterBusy
from pocketloop.contracts.home import Home
from pocketloop.schedules.holding import held

HOLDER = """
import os, sys, time
from pathlib import Path
from pocketloop.contracts.home import Home
from pocketloop.schedules.holding import held
with held(Home(Path(sys.argv[1])), "functions", "pocketloop retrain functions"):
    if not sys.argv[2:] or os.fork() == 0:
        print("held", flush=True)
    time.sleep(600)
"""


def holder(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_another_run_is_told_which_process_holds_the_adapter_and_since_when(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(AdapterBusy) as refused, held(Home(tmp_path), "functions", "pocketloop curate functions"):
            pass
        said = (
            rf"taken by process {process.pid} \(`pocketloop retrain functions`\) since 20\d\d-\d\d-\d\dT[\d:]+\+00:00"
        )
        assert re.search(said, str(refused.value))
        assert refused.value.exit_code == 75
        with held(Home(tmp_path), "intent", "pocketloop retrain intent"):
            pass
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("child", [[], ["fork"]])
def test_a_killed_holder_leaves_no_lock_even_where_a_child_of_it_lives_on(tmp_path: Path, child: list[str]) -> None:
    process = holder(tmp_path, *child)
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        with held(Home(tmp_path), "functions", "pocketloop retrain functions"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL) if child else None
        process.stdout.close()  # type: ignore[union-attr]


def test_an_adapter_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), held(Home(tmp_path), "functions", "x"):
        raise RuntimeError
    with held(Home(tmp_path), "functions", "x"):
        pass
