"""lm-eval laid over this Python environment, made on first use.

Its twenty packages that the project does not need otherwise (a metric library, table writers) lie in a folder of their
own, which only lm-eval's process has on its path; torch and transformers are the project's.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import sha256_file, sha256_text, write_json
from pocketloop.contracts.home import Home

LOCK = Path(__file__).parent / "requirements.lock"
_READY = "ready.json"
_LAST = 2000  # characters of a log


class LmEvalEnvironment(NamedTuple):
    """The folder of lm-eval's own packages."""

    packages: Path

    def run(self, arguments: list[str], log: Path) -> None:
        """Run `lm_eval` with these arguments, offline; what it says goes to `log`.

        Raises:
            ModelError: it failed; the message has the end of the log.
        """
        self.python(["-m", "lm_eval", *arguments], log)

    def python(self, arguments: list[str], log: Path) -> None:
        """Run the interpreter with these arguments where `lm_eval` can be imported.

        Raises:
            ModelError: it failed; the message has the end of the log.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as out:
            done = subprocess.run(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.variables(),
                check=False,
            )
        if done.returncode != 0:
            raise ModelError(
                f"lm-eval's process ended with status {done.returncode}; its log {log} ends with:\n{_end_of(log)}"
            )

    def variables(self) -> dict[str, str]:
        """Environment variables for it: nothing is fetched, and nothing reported."""
        path = os.pathsep.join(filter(None, [str(self.packages), os.environ.get("PYTHONPATH", "")]))
        fixed = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "DO_NOT_TRACK": "true"}
        return dict(os.environ) | fixed | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}


def lm_eval_environment(cache: Path | None = None) -> LmEvalEnvironment:
    """lm-eval's packages under `cache` (by default the home's), installed if they are not there.

    They count as installed when their marker is written, last of all. Several processes that need them at once wait for
    the first.

    Raises:
        ModelError: a package could not be installed; the log is named.
    """
    from filelock import FileLock

    digest = sha256_text(f"{sha256_file(LOCK)} {sys.version}")
    folder = (cache or Home().cache) / "lm-eval" / digest[:16]
    made = LmEvalEnvironment(folder / "packages")
    if not (folder / _READY).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "making.lock"):
            if not (folder / _READY).is_file():
                _make(folder, made.packages)
    return made


def _make(folder: Path, packages: Path) -> None:
    import importlib.util

    shutil.rmtree(packages, ignore_errors=True)
    installer = ["uv", "pip", "install"] if importlib.util.find_spec("uv") else ["pip", "install"]
    asked = ["--quiet", "--no-deps", "--target", str(packages), "--requirement", str(LOCK)]
    log = folder / "install.log"
    with open(log, "wb") as out:
        done = subprocess.run([sys.executable, "-m", *installer, *asked], stdout=out, stderr=out, check=False)
    if done.returncode != 0:
        raise ModelError(f"lm-eval could not be installed in {packages}; its log {log} ends with:\n{_end_of(log)}")
    write_json(folder / _READY, {"lock": sha256_file(LOCK), "python": sys.version})


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_LAST:] or "it wrote nothing"
