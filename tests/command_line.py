"""The command line on a home of its own, driven as a person would."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from threading import Lock

from fixed_key import fixed_key

from pocketloop.contracts.home import Home

_asking = Lock()
POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))
SMALL = [
    "--set=data.sources.1.uri=demo://functions?split=train&n=1000",
    "--set=train.stages.0.sft.epochs=2",
    "--set=train.stages.0.sft.batch_size=8",
    "--set=train.checkpoints.every_seconds=5",
    "--set=evaluation.sets.0.limit=80",
    "--set=gates=[]",
    "--set=export.parity.max_score_loss=0.2",
    "--set=safety={behaviour: null}",
    "--set=label.min_kappa=0.3",
]


class Fleet:
    """A home of its own, driven through the command line as a person would."""

    def __init__(self, root: Path) -> None:
        self.home = Home(fixed_key(root))
        self.environment = {
            **os.environ,
            "POCKETLOOP_HOME": str(root),
            "ZENML_CONFIG_PATH": str(root / "zenml"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        self.environment.pop("MLFLOW_TRACKING_URI", None)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [POCKETLOOP, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Stop a server and the workers that it started."""
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=300)

    def run(self, *arguments: str, status: int = 0) -> str:
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=2400)
        assert process.returncode == status, printed
        return printed


class WarmFleet(Fleet):
    """A fleet whose commands are forked from a process that has imported what pipelines import.

    What depends on no home, and is named by what it was made from, is made by the first home that needs it and copied
    into later ones: the prepared base, and the scrubber's figures on the held-out texts. `start` still gives the
    program itself, for what is to be killed or stopped.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        _copy_made(_made_once(), root)

    def run(self, *arguments: str, status: int = 0) -> str:
        ended, said = forked([POCKETLOOP, *arguments], self.environment, Path.cwd())
        assert ended == status, said
        _copy_made(self.home.root, _made_once())
        return said


@cache
def _made_once() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pocketloop-made-"))
    atexit.register(shutil.rmtree, folder)
    return folder


def _copy_made(here: Path, there: Path) -> None:
    for found in [*here.glob("bases/[!.]*"), *here.glob("cache/audit-*.json")]:
        copy = there / found.relative_to(here)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if found.is_dir() else shutil.copy2)(found, copy)


def forked(words: list[str], environment: dict[str, str], folder: Path) -> tuple[int, str]:
    """Run a command as `warm_commands.py` does, one at a time; its exit status, and what it printed."""
    with _asking, tempfile.NamedTemporaryFile("r", encoding="utf-8") as printed:
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        asked = {"words": words, "environment": environment, "folder": str(folder), "printed": printed.name}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return status, Path(printed.name).read_text(encoding="utf-8")


@cache
def _server() -> subprocess.Popen[str]:
    """One for each process that runs tests; it ends when its standard input does, with that process."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm_commands.py"))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
