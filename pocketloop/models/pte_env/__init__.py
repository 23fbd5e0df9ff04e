"""ExecuTorch in a Python environment of its own, made on first use.

optimum-executorch needs other versions of transformers and torchao than the rest of the project, so what lowers and
what runs a `.pte` lies behind a process: `lower.py` and `serve.py` run there and import nothing of pocketloop. They are
given paths and a JSON manifest (`lower.py`) or requests over a pipe (`serve.py`).
"""

import json
from pathlib import Path
from typing import NamedTuple

from pocketloop.models.environments import last_lines, make_environment, run_logged, variables

__all__ = ["LOCK", "PteEnvironment", "last_lines", "pte_environment", "run_there"]

_HERE = Path(__file__).parent
LOCK = _HERE / "requirements.lock"
_WANTED = _HERE / "requirements.in"
_IMPORTS = "executorch.runtime, optimum.exporters.executorch, torchao"


class PteEnvironment(NamedTuple):
    """The other environment's interpreter, and the digest of what is installed in it."""

    python: Path
    digest: str

    def command(self, script: str, *arguments: str) -> list[str]:
        """The argument list that runs `script` of this folder there, apart from the user's own packages."""
        return [str(self.python), "-P", "-s", str(_HERE / script), *arguments]

    @staticmethod
    def variables() -> dict[str, str]:
        """Environment variables for it."""
        return variables()


def pte_environment(cache: Path | None = None) -> PteEnvironment:
    """The environment for this lock file and Python under `cache` (by default the home's), made if it is not there.

    Making it takes about a minute and 1.4 GB.

    Raises:
        ModelError: a package could not be installed; the log is named.
    """
    return PteEnvironment(
        *make_environment("executorch", _WANTED, LOCK, _IMPORTS, "ExecuTorch", "a minute, 1.4 GB", cache)
    )


def run_there(environment: PteEnvironment, script: str, job: dict[str, object], folder: Path) -> None:
    """Run `script` of this folder in the environment, with `job` as its manifest in `folder`; keeps its log there.

    The process ends with this one, however this one ends: it watches the pipe that it is given.

    Raises:
        ModelError: it failed; the message has the last lines of the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "job.json"
    manifest.write_text(json.dumps(job, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    log = folder / f"{Path(script).stem}.log"
    log.unlink(missing_ok=True)
    run_logged(environment.command(script, str(manifest)), log, f"{script} failed in ExecuTorch's environment")
