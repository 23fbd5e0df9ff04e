"""What the command line's answer costs in CPU-seconds, beside an interpreter that only imports its libraries."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))
COMMANDS = {
    "baseline: import typer, pydantic, yaml": [sys.executable, "-c", "import typer, pydantic, yaml"],
    "pocketloop --help": [POCKETLOOP, "--help"],
    "pocketloop recipe check functions": [POCKETLOOP, "recipe", "check", "functions"],
    "pocketloop, fresh home": [POCKETLOOP],
    "shell completion of an adapter's name": [POCKETLOOP],
}
COMPLETION = {"_POCKETLOOP_COMPLETE": "complete_bash", "COMP_WORDS": "pocketloop retrain fun", "COMP_CWORD": "2"}
ROUNDS = 7


def _seconds(name: str, home: str) -> float:
    environment = {**os.environ, "POCKETLOOP_HOME": home, **(COMPLETION if "completion" in name else {})}
    before = _children()
    subprocess.run(COMMANDS[name], check=True, stdout=subprocess.DEVNULL, env=environment)
    return _children() - before


def _children() -> float:
    """User and system CPU-seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    # The commands take turns, so that a drifting machine slows all of them alike.
    with tempfile.TemporaryDirectory() as folder:
        fresh = str(Path(folder) / "home")
        rounds = [{name: _seconds(name, fresh) for name in COMMANDS} for _ in range(ROUNDS)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in COMMANDS}
    baseline = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"{name:40} {seconds:6.3f} s   {seconds / baseline:5.2f} x baseline")


if __name__ == "__main__":
    main()
