"""One home with one trained candidate, for all end-to-end tests of the session."""

import signal
import time

import pytest
from command_line import SMALL, Fleet, WarmFleet
from object_store import s3_server

__all__ = ["s3_server"]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = WarmFleet(tmp_path_factory.mktemp("home"))
    fleet.run("data", "demo", "--events", "1600")
    return fleet


@pytest.fixture(scope="session")
def first_run(fleet: Fleet) -> str:
    """The main job, killed once in the middle of training, after its first checkpoint, and started again."""
    killed = fleet.start("retrain", "functions", *SMALL)
    assert killed.stdout is not None
    for line in killed.stdout:
        if "▸ train" in line:
            break
    while killed.poll() is None and not list((fleet.home.root / "training").rglob("checkpoint-*/state.json")):
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    return fleet.run("retrain", "functions", *SMALL)
