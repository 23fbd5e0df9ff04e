"""How long the command line takes to answer, beside an interpreter that only imports typer and pydantic."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
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
    started = time.perf_counter()
    subprocess.run(COMMANDS[name], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - started


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
