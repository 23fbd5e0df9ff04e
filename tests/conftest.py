import gc
import os
import random
import sys
import tempfile
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from fixed_key import fixed_key
from hypothesis import HealthCheck, settings

# A busy machine is not a failing property, and a test run tells about the change, not about the dice; new examples are
# sought with `--hypothesis-profile=seek`.
_BUSY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("house", derandomize=True, **_BUSY)
settings.register_profile("seek", **_BUSY)
settings.load_profile("house")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """A ZenML store of this process's own, set before anything imports ZenML, which reads the variable once."""
    folder = tempfile.TemporaryDirectory(prefix="zenml-")
    config.add_cleanup(folder.cleanup)
    os.environ["ZENML_CONFIG_PATH"] = folder.name
    os.environ["ZENML_LOGGING_VERBOSITY"] = "ERROR"
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch  # noqa: F401 - so that it can be seeded before each test

        # ZenML names a step's code by its place under the main module's folder, and a worker's main module has none.
        from zenml.utils import source_utils

        source_utils.set_custom_source_root(str(Path(__file__).resolve().parents[1]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Each test draws the same in every run: torch would begin with the system's noise, and go on from other tests."""
    random.seed(0)
    for name, seed in (("numpy", "random.seed"), ("torch", "manual_seed")):
        if name in sys.modules:
            attrgetter(seed)(sys.modules[name])(0)


_TOGETHER = {
    "test_retrain.py": "one home",
    "test_rollout.py": "one home",
    "review": "one server",
    "test_pte.py": "one environment",
    "test_executorch.py": "one environment",
    "test_version.py": "one environment",
}
"""Files, and folders, whose tests share what takes minutes to make."""

_LONGEST = ["one home", "test_cluster.py", "test_week.py", "one environment", "notebooks", "pipelines", "one server"]
"""Groups, files and folders that start first, or one worker would end with them long after the others."""


def _group(path: Path) -> str | None:
    return _TOGETHER.get(path.name) or _TOGETHER.get(path.parent.name)


def _turn(item: pytest.Item) -> int:
    names = (_group(item.path), item.path.name, item.path.parent.name)
    return next((turn for turn, name in enumerate(_LONGEST) if name in names), len(_LONGEST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest chains of tests start first."""
    items.sort(key=_turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a file's tests to one worker, so that its fixtures are made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::", 1)[0])
            return _group(file) or str(file)

    return ByFile(config, log)


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """What is loaded by now stays: who collects garbage at every step (statsmodels, trl) is to search what is new."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public datasets beside the checkout; tests on them skip where they are absent."""
    folder = Path(os.environ.get("POCKETLOOP_SHARED_DATA", SHARED))
    if not folder.is_dir():
        pytest.skip("the public datasets (CLINC150, SNIPS, SGD) are not beside this checkout")
    return folder


@pytest.fixture
def absent_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A POCKETLOOP_HOME that is not there yet, with a registry of its own.

    A command that runs in this process names its registry in the environment; set and deleted here, that name is gone
    when the test ends, too.
    """
    monkeypatch.setenv("POCKETLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return tmp_path / "home"


@pytest.fixture
def home(absent_home: Path) -> Path:
    """A clean POCKETLOOP_HOME, whose key is the same in every run.

    A home's key is drawn at random and pseudonyms follow it: what is learnt from scrubbed text would differ from run to
    run.
    """
    return fixed_key(absent_home)


@pytest.fixture(scope="session")
def zenml_home() -> Path:
    """The folder of this process's ZenML store."""
    return Path(os.environ["ZENML_CONFIG_PATH"])
