"""Python environments of their own, made on first use, for libraries that need other versions than the project does.

Each has a folder with `requirements.in` (what is wanted) and `requirements.lock` (all of it, pinned; `scripts/lock.sh`
compiles it). What runs there lies behind a process and is given paths, addresses and JSON only.
"""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import sha256_file, sha256_text, write_json
from pocketloop.contracts.home import Home

_log = logging.getLogger(__name__)
_READY = "ready.json"
_LAST_LINES = 12


def make_environment(
    name: str, wanted: Path, lock: Path, imports: str, title: str, takes: str, cache: Path | None = None
) -> tuple[Path, str]:
    """The interpreter of the environment for this lock file and Python, made if it is not there, and its digest.

    It counts as made when its marker is written, last of all: one that was interrupted is made anew. Several processes
    that need it at once wait for the first.

    Args:
        name: of its folder under `cache`.
        wanted: the `requirements.in`; a line `torch==...` in it is installed first, as pip is configured to get it (a
            processor-only build, say).
        lock: the `requirements.lock`, without torch and what its build brings.
        imports: modules, with commas, that must load for it to count as made.
        title: whose environment it is, for messages.
        takes: what making it takes, for who waits.
        cache: folder for such environments; by default the home's.

    Raises:
        ModelError: a package could not be installed; the log is named.
    """
    from filelock import FileLock

    digest = sha256_text(f"{sha256_file(lock)} {sha256_file(wanted)} {sys.version}")
    folder = (cache or Home().environments) / name / digest[:16]
    if not _is_ready(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "making.lock"):
            if not _is_ready(folder):
                _log.info("making %s's environment below %s, once: %s", title, folder.parent, takes)
                _make(folder, wanted, lock, imports, title)
    return folder / "env" / "bin" / "python", digest


def variables() -> dict[str, str]:
    """Environment variables for it: nothing is fetched, nothing is reported, hashing is the same each time."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    fixed = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "true"}
    return kept | fixed | {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false"}


def last_lines(log: Path) -> str:
    """The end of a log, for an error message."""
    if not log.is_file():
        return "it wrote nothing"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line[:300] for line in lines[-_LAST_LINES:]) or "it wrote nothing"


def run_logged(command: Sequence[str], log: Path, problem: str, extra: dict[str, str] | None = None) -> None:
    """Run a command to its end, what it prints going into `log`; it is killed when this process is interrupted.

    Raises:
        ModelError: it failed; the message begins with `problem` and has the last lines of the log.
    """
    with (
        open(log, "ab") as out,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=variables() | (extra or {})
        ) as process,
    ):
        try:
            # Not communicate(), which would close the pipe that tells the process that this one lives.
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status != 0:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise ModelError(f"{problem} ({Path(command[0]).name} {how}); its log {log} ends with:\n{last_lines(log)}")


def _is_ready(folder: Path) -> bool:
    return (folder / _READY).is_file() and (folder / "env" / "bin" / "python").exists()


def _make(folder: Path, wanted: Path, lock: Path, imports: str, title: str) -> None:
    environment, log = folder / "env", folder / "install.log"
    shutil.rmtree(environment, ignore_errors=True)
    log.unlink(missing_ok=True)
    torch = [line for line in wanted.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    python = str(environment / "bin" / "python")
    locked = ["--requirement", str(lock)]
    # Most modules are never imported there, so none is compiled beforehand.
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    steps = [
        [sys.executable, "-m", "venv", str(environment)],
        *([[*pip, *torch]] if torch else []),
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *locked]
        if importlib.util.find_spec("uv")
        else [*pip, "--no-deps", *locked],
        [python, "-c", f"import {imports}"],
    ]
    for step in steps:
        run_logged(step, log, f"{title}'s environment could not be made in {environment}")
    write_json(folder / _READY, {"lock": sha256_file(lock), "python": sys.version})
