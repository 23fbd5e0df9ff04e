"""How fast events stream through curation, stage by stage, in how much memory, and how both grow with their number.

Events of a made-up fleet pass every stage from the log to a release. Each stage has a process of its own, which works
on one number of events after the other, after a warm-up on a few hundred that pays for imports and models. A stage's
speed is given per CPU second and as a share of a baseline measured in the same run: reading the posted lines and
validating them with pydantic, and nothing else. Growth compares the largest number of events with the smallest: 1.0 is
a time per event that does not depend on it.

`--events 1000000 --smallest 10000` shows the growth from ten thousand to a million; it takes most of an hour.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

NOW = datetime(2026, 11, 20, tzinfo=UTC)
STAGES = ("baseline", "import", "collect", "scrub", "validate", "drift", "label", "select", "release")
EVENTS_PER_DEVICE = 15
WARM = 400
CHANGES = ["data.sources=[{kind: events, skill: functions}]", "label.min_kappa=-1"]
"""The recipe `functions` on events alone, however few for a judge to learn from; its other settings as they are."""


def events(count: int) -> Iterator[dict[str, Any]]:
    """`count` different events of a fleet that asks for functions, written with the demo fleet's grammar.

    A device has about 15 of them; most come from the newest ten devices, the others from any earlier one.
    """
    from pocketloop.data.demo.conversations import function_conversation
    from pocketloop.data.demo.mistakes import feedback
    from pocketloop.data.demo.people import Persona, make_persona

    people: list[Persona] = []
    rng = random.Random(count)
    for index in range(count):
        while len(people) <= (index // (10 * EVENTS_PER_DEVICE) + 1) * 10:
            people.append(make_persona(rng, "train"))
        device = len(people) - 1 - rng.randrange(10) if rng.random() < 0.6 else rng.randrange(len(people))
        talk = function_conversation(rng, people[device])
        yield {
            "schema": "interaction/1",
            "event_id": f"e{index:07d}",
            "device_id": f"d{device:06d}",
            "ts": (NOW - timedelta(seconds=rng.randrange(1, 60 * 86400))).isoformat(),
            "app_version": "4.2.0",
            "locale": people[device].me.locale.replace("_", "-"),
            "adapter": {"skill": "functions", "version": "1"},
            "consent": {"training": rng.random() < 0.97, "policy": "2026-01"},
            "messages": talk.messages,
            "feedback": feedback(talk.right, talk.correction, rng),
            "metrics": {"latency_ms": 320.5},
        }


class Run:
    """One size: its folder, and every stage as a function that returns how many records it was given."""

    def __init__(self, folder: Path, count: int, workers: int) -> None:
        from pocketloop.contracts.collecting import ComputeConfig
        from pocketloop.contracts.home import Home
        from pocketloop.contracts.loading import load_catalogue, load_recipe

        self.folder = folder
        self.count = count
        self.home = Home(folder / "home")
        self.recipe = load_recipe("functions", CHANGES)
        self.catalogue = load_catalogue(self.recipe)
        self.compute = ComputeConfig(workers=workers)
        self.kept = self.home.cache / "curation"

    def generate(self) -> int:
        from pocketloop.contracts.files import write_jsonl

        return write_jsonl(self.folder / "fleet.jsonl", events(self.count))

    def baseline(self) -> int:
        from pocketloop.contracts.events import InteractionEvent

        with open(self.folder / "fleet.jsonl", "rb") as lines:
            return sum(1 for line in lines if InteractionEvent.model_validate_json(line).messages)

    def import_(self) -> int:
        from pocketloop.data.event_log import import_file

        return import_file(str(self.folder / "fleet.jsonl"), self.home.events, NOW).lines

    def collect(self) -> int:
        from pocketloop.data.collect import collect

        return self._done("collect", collect(self.recipe, self.home.events, self.folder / "collected", NOW))

    def scrub(self) -> int:
        from pocketloop.data.shards import MANIFEST, LogShards
        from pocketloop.privacy.pseudonyms import load_key
        from pocketloop.privacy.scrubber import Scrubber
        from pocketloop.privacy.shards import scrub_shards
        from pocketloop.privacy.slots import slots_of, vocabulary_of

        collected = self.folder / "collected"
        shards = LogShards(self.home.events, collected / MANIFEST)
        scrubber = Scrubber(
            self.recipe.scrub, load_key(self.home), slots_of(self.catalogue), vocabulary_of(self.catalogue)
        )
        cache = self.home.cache / "scrub"
        out = self.folder / "scrubbed"
        return self._done(
            "scrub", scrub_shards(shards, out, scrubber, cache, collected=collected, compute=self.compute)
        )

    def validate(self) -> int:
        from pocketloop.data.validate import validate

        validated = self.folder / "validated"
        return self._done(
            "validation", validate(self.folder / "scrubbed", self.recipe, self.catalogue, validated, kept=self.kept)
        )

    def drift(self) -> int:
        from pocketloop.data.drift import drift

        validated = self.folder / "validated"
        return self._done("drift", drift(validated, self.recipe, validated, self.folder / "drift"))

    def label(self) -> int:
        from pocketloop.labeling.label import label

        labelled = self.folder / "labelled"
        return self._done(
            "label", label(self.folder / "validated", self.recipe, self.catalogue, labelled, kept=self.kept)
        )

    @cached_property
    def prompts(self) -> dict[str, list[Any]]:
        """The prompts of each evaluation set."""
        from pocketloop.contracts.examples import Example
        from pocketloop.data.example_files import stream_examples

        return {
            wanted.name: [e.prompt for e in stream_examples(wanted.uri, self.recipe.task) if isinstance(e, Example)]
            for wanted in self.recipe.evaluation.sets
        }

    def select(self) -> int:
        from pocketloop.data.select.selecting import select

        report = select(
            self.folder / "labelled",
            self.recipe,
            self.folder / "selected",
            evaluation=self.prompts,
            previous=None,
            compute=self.compute,
            work=self.folder / "selecting",
            kept=self.kept,
        )
        return self._done("select", report)

    def release(self) -> int:
        from pocketloop.contracts import reports
        from pocketloop.data.release import write_release

        classes: dict[str, Any] = {
            "collect": reports.CollectReport,
            "scrub": reports.ScrubReport,
            "validation": reports.ValidationReport,
            "drift": reports.DriftReport,
            "label": reports.LabelReport,
            "select": reports.SelectReport,
        }
        given: dict[str, Any] = {name: self.folder / name for name in ("scrubbed", "validated", "selected")}
        for name, report in classes.items():
            given[name] = report.model_validate_json((self.folder / f"{name}.json").read_bytes())
        return write_release(self.home, self.recipe, **given).stages[-1].entered

    def _done(self, name: str, report: Any) -> int:
        from pocketloop.contracts.files import write_json

        write_json(self.folder / f"{name}.json", report)
        return int(report.rows if name == "drift" else report.count.entered)


def work(stage: str, root: Path, sizes: list[int], workers: int) -> None:
    """Run one stage of every size in this process, the smallest first, and print what each took as JSON."""
    if stage != "generate":
        with tempfile.TemporaryDirectory(dir=root) as copy:
            shutil.copytree(root / "warm", copy, dirs_exist_ok=True)
            for known in ("cache", "releases"):  # what is known already would not be worked on
                shutil.rmtree(Path(copy) / "home" / known, ignore_errors=True)
            function_of(Run(Path(copy), WARM, 1), stage)()
    found = {}
    for count in sizes:
        run = function_of(Run(root / str(count), count, workers), stage)
        before, started = cpu(), time.perf_counter()
        records = run()
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        found[count] = {
            "records": records,
            "cpu": cpu() - before,
            "seconds": time.perf_counter() - started,
            "peak_mb": max(own.ru_maxrss, children.ru_maxrss) / 1024,
        }
        print(f"  {stage:9} {count:>9,} events  {found[count]['seconds']:7.1f} s", file=sys.stderr, flush=True)
    print(json.dumps(found))


def function_of(run: Run, stage: str) -> Callable[[], int]:
    function: Callable[[], int] = getattr(run, {"import": "import_"}.get(stage, stage))
    return function


def cpu() -> float:
    """Processor seconds of this process and of its children so far."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def measure(root: Path, sizes: list[int], workers: int) -> dict[int, dict[str, dict[str, float]]]:
    """What every stage took, by size. This process stays small: what a child starts with counts in its peak."""
    for count in sizes:
        (root / str(count)).mkdir()
    found: dict[int, dict[str, dict[str, float]]] = {count: {} for count in sizes}
    for stage in ("warm", "generate", *STAGES):
        command = [sys.executable, __file__, "--stage", stage, "--work", str(root), "--workers", str(workers)]
        done = subprocess.run([*command, "--sizes", *map(str, sizes)], check=True, stdout=subprocess.PIPE, text=True)
        if stage != "warm":
            for count, took in json.loads(done.stdout.splitlines()[-1]).items():
                found[int(count)][stage] = took
    return found


def warm_up(root: Path) -> None:
    """A few hundred events through every stage, for the processes that follow to warm up on."""
    folder = root / "warm"
    folder.mkdir()
    run = Run(folder, WARM, 1)
    for stage in ("generate", *STAGES):
        function_of(run, stage)()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--smallest", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder for the events, about 7 kB each (default: the system's)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage == "warm":
        warm_up(options.work)
    elif options.stage:
        work(options.stage, options.work, options.sizes, options.workers)
    else:
        sizes = [options.smallest]
        while sizes[-1] * 10 <= options.events:
            sizes.append(sizes[-1] * 10)
        with tempfile.TemporaryDirectory(prefix="curate-", dir=options.work) as root:
            found = measure(Path(root), sizes, options.workers)
        report(found, options.json)


def report(found: dict[int, dict[str, dict[str, float]]], as_json: bool) -> None:
    """Print the table, or all figures as JSON."""
    smallest, largest = min(found), max(found)
    baseline = _rate(found[largest]["baseline"])
    rows: dict[str, dict[str, Any]] = {
        stage: {
            "records": found[largest][stage]["records"],
            "per_cpu_second": _rate(found[largest][stage]),
            "ratio": _rate(found[largest][stage]) / baseline,
            "peak_mb": {count: round(found[count][stage]["peak_mb"]) for count in found},
            "growth": _rate(found[smallest][stage]) / _rate(found[largest][stage]),
        }
        for stage in STAGES
    }
    if as_json:
        print(json.dumps({"events": list(found), "stages": rows}))
        return
    sizes = "  ".join(f"{count:>9,}" for count in found)
    print(f"{'':9}  {'records':>9}  per CPU s  of base  time/event  peak MB at {sizes} events")
    for stage, row in rows.items():
        peaks = "  ".join(f"{peak:>9,}" for peak in row["peak_mb"].values())
        print(
            f"{stage:9}  {row['records']:>9,}  {row['per_cpu_second']:>9,.0f}  {row['ratio']:>7.3f}  "
            f"{row['growth']:>9.2f}x             {peaks}"
        )


def _rate(measured: dict[str, float]) -> float:
    return measured["records"] / max(measured["cpu"], 1e-9)


if __name__ == "__main__":
    main()
