"""Does a night cost what is new, or what there is? Night 1 and night 30 with the same number of new events each.

Every night is the command `retrain` on a home of its own; a stage's CPU seconds are those that the stage itself wrote
into ZenML, and a stage that was reused costs nothing. The nights between are taken at one go (`--each` runs them one by
one): what night 30 finds is the same, a log of 29 nights and the caches that a run before it has left. Each candidate
becomes the champion, and the next night goes on from it with replay; `--from-base` trains anew on everything.

`--curation` leaves training out: the stages from the log to a release, called one after the other in this process,
so that a thousand events a night take minutes.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curate import cpu

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))
CHANGES = [
    "data.sources=[{kind: events, skill: functions}]",
    "label.min_kappa=-1",
    "train.lora={r: 4, alpha: 8, targets: all-linear}",
    "train.stages=[{sft: {epochs: 1, learning_rate: 6.0e-3, batch_size: 16}}]",
    "evaluation.sets.0.limit=20",
    "gates=[]",
    "safety={behaviour: null}",
    "export.parity.max_score_loss=0.5",
]
"""The recipe `functions` on events alone, its training and evaluation small."""


class Nights:
    """A home, a fleet whose events come in order, and the nights."""

    def __init__(self, root: Path, new: int, start: str) -> None:
        from pocketloop.data.demo import demo_events

        self.root, self.new = root, new
        self.changes = [*CHANGES, f"train.start={start}"]
        self.environment = {**os.environ, "POCKETLOOP_HOME": str(root), "ZENML_CONFIG_PATH": str(root / "zenml")}
        self.environment.pop("MLFLOW_TRACKING_URI", None)
        self.count = 0
        fleet = demo_events(1_000_000_000, 1, now=datetime.now(UTC))
        wanted = (r for r in fleet if r["adapter"]["skill"] == "functions" and r["consent"]["training"])
        self.events = (row for row in wanted if row["event_id"] not in self.posted)
        self.posted: set[str] = set()

    def post(self, nights: int) -> None:
        """Phones post the events of so many days."""
        from pocketloop.contracts.files import write_jsonl

        batch = []
        for row in self.events:
            self.posted.add(row["event_id"])
            batch.append(row)
            if len(batch) == nights * self.new:
                break
        posted = self.root / "posted.jsonl"
        write_jsonl(posted, batch)
        self._call("data", "import", str(posted))
        self.count += nights * self.new

    def night(self) -> tuple[float, dict[str, float]]:
        """CPU seconds in all, and by stage."""
        before = cpu()
        self._call("retrain", "functions", *(f"--set={change}" for change in self.changes))
        return cpu() - before, self._stages()

    def promote(self) -> None:
        """Let the fleet run the newest candidate, whatever its gates say: so little training passes none."""
        from pocketloop.contracts.home import Home
        from pocketloop.registry.mlflow_store import CHAMPION, candidates, client, released_name

        logging.getLogger("mlflow").setLevel(logging.ERROR)  # it narrates each copy
        home, released = Home(self.root), released_name("functions")
        newest = candidates(home, "functions")[0].version
        copy = client(home).copy_model_version(f"models:/functions/{newest}", released)
        client(home).set_registered_model_alias(released, CHAMPION, copy.version)

    def _stages(self) -> dict[str, float]:
        from zenml.client import Client

        run = Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]
        ran = {name: step for name, step in run.steps.items() if str(step.status) != "cached"}
        return {name: float(step.run_metadata.get("cpu_seconds", 0)) for name, step in ran.items()}

    def _call(self, *arguments: str) -> None:
        done = subprocess.run(
            [POCKETLOOP, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 3):  # so little training passes no gate
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def curation(root: Path, new: int, nights: int) -> list[tuple[float, dict[str, float]]]:
    """CPU seconds of the first and of the last night, in all and by stage; the nights between are taken at one go."""
    from itertools import islice

    from curate import STAGES, Run, events, function_of, warm_up

    from pocketloop.contracts.files import write_jsonl

    warm_up(root)
    run = Run(root / "fleet", nights * new, 1)
    assert run.prompts  # a step of its own, whose cost does not change
    fleet = events(nights * new)
    found = []
    for count in (new, new * (nights - 2), new):
        for made in ("scrubbed", "validated", "drift", "labelled", "selected", "selecting"):
            shutil.rmtree(run.folder / made, ignore_errors=True)
        write_jsonl(run.folder / "fleet.jsonl", islice(fleet, count))
        stages: dict[str, float] = {}
        for stage in STAGES[1:]:
            before = cpu()
            function_of(run, stage)()
            stages[stage] = cpu() - before
        found.append((sum(stages.values()), stages))
    return [found[0], found[-1]]


def show(first: tuple[float, dict[str, float]], last: tuple[float, dict[str, float]], nights: int) -> None:
    print(f"{'stage':18} {'night 1':>9} {f'night {nights}':>9} {'ratio':>7}")
    rows: dict[str, tuple[float, float]] = {
        name: (first[1].get(name, 0.0), last[1].get(name, 0.0)) for name in {**first[1], **last[1]}
    }
    rows["stages"] = (sum(first[1].values()), sum(last[1].values()))
    rows["in all"] = (first[0], last[0])
    for name, (before, after) in rows.items():
        ratio = f"{after / before:7.2f}" if before >= 0.05 else "      –"
        print(f"{name:18} {before:7.2f} s {after:7.2f} s {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--new", type=int, default=100, help="new events each night")
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument(
        "--each", action="store_true", help="run every night, not only 1, the one before the last, and it"
    )
    parser.add_argument("--curation", action="store_true", help="the curation alone")
    parser.add_argument("--from-base", action="store_true", help="train anew each night, on all that there is")
    options: Any = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nights-") as folder:
        if options.curation:
            first, last = curation(Path(folder), options.new, options.nights)
            print(
                f"{options.new} new events each night; the log holds {options.new}, then {options.nights * options.new}"
            )
            show(first, last, options.nights)
            return
        os.environ["ZENML_CONFIG_PATH"] = str(Path(folder) / "zenml")
        os.environ["ZENML_LOGGING_VERBOSITY"] = "CRITICAL"
        (Path(folder) / "zenml").mkdir()
        world = Nights(Path(folder), options.new, "base" if options.from_base else "champion")
        world.post(1)
        first = world.night()
        between = options.nights - 2
        for _ in range(between if options.each else 1):
            world.promote()
            world.post(1 if options.each else between)
            world.night()
        world.promote()
        world.post(1)
        last = world.night()
        print(f"{options.new} new events each night; the log holds {options.new}, then {world.count}")
        show(first, last, options.nights)


if __name__ == "__main__":
    main()
