"""How long the command line takes to answer, beside an interpreter that only imports typer and pydantic."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))
COMMANDS = {
    "baseline: import typer, pydantic, yaml": [sys.executable, "-c", "import typer, pydantic, yaml"],
    "pocketloop --help": [POCKETLOOP, "--help"],
    "pocketloop recipe check functions": [POCKETLOOP, "recipe", "check", "functions"],
}
ROUNDS = 7


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    # The commands take turns, so that a drifting machine slows all of them alike.
    rounds = [{name: _seconds(command) for name, command in COMMANDS.items()} for _ in range(ROUNDS)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in COMMANDS}
    baseline = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"{name:40} {seconds:6.3f} s   {seconds / baseline:5.2f} x baseline")


if __name__ == "__main__":
    main()
