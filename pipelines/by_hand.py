"""The stages of `curate` and `train` called by hand, in plain Python: for notebooks, and to try a recipe in a shell.

The same functions that the steps call, in the same order and on the same files, without ZenML's store and without
MLflow. What was made is found again: scrubbed shards, releases, prepared bases and trained stages lie in the home.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pocketloop.contracts.files import Folder, sha256_text, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import DatasetRelease, EvaluationReport, TrainReport
from pocketloop.data.event_log import ImportReport
from pocketloop.evaluation.suite import Outcomes

if TYPE_CHECKING:
    from steps.champion import Champion

DEMO_DAY = datetime(2026, 11, 20, tzinfo=UTC)
"""The demo fleet's clock stands still in notebooks, so that they give the same numbers on any day."""
FIRST, THEN = 800, 5000
"""Events of the demo fleet before its first release, and between that and the second, of which few are kept."""
WIDGET = ("set_timer", "set_alarm", "set_reminder")
"""The calls of a widget that the demo fleet got between its two releases."""
_SMALL = (
    "data.sources.1.uri=demo://functions?split=train&n=500&seed=3",
    "label.min_kappa=0.3",
    "train.stages.0.sft.epochs=1",
    "train.stages.0.sft.batch_size=8",
    "evaluation.sets.0.limit=240",
)


def demo_home() -> Home:
    """A home for notebooks inside the project's own, whose log, releases and versions they never touch.

    From now on POCKETLOOP_HOME names it, and ZenML's store and MLflow's lie in it, for every function and command that
    this process calls. To be called before `steps` are imported: ZenML reads its settings once.
    """
    root = Home().root
    home = Home(root if root.name == "notebooks" else root / "notebooks")
    home.root.mkdir(parents=True, exist_ok=True)
    os.environ["POCKETLOOP_HOME"] = str(home.root)
    os.environ["ZENML_CONFIG_PATH"] = str(home.zenml)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home.root / 'mlflow.db'}"
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "CRITICAL")
    return home


def demo_recipe(*overrides: str) -> Recipe:
    """The recipe `functions` at a size that trains in about a minute; overrides as `--set` takes them."""
    return load_recipe("functions", [*_SMALL, *overrides])


def post_events(
    home: Home, start: int, count: int, keep: Callable[[dict[str, Any]], bool] = lambda event: True
) -> ImportReport:
    """Let the demo fleet post its events `start` to `start + count` to the log, of them those that `keep` keeps."""
    from pocketloop.data.demo import demo_events
    from pocketloop.data.event_log import import_file

    path = home.root / "demo" / f"events-{start}-{start + count}.jsonl"
    write_jsonl(path, (event for event in demo_events(count, 1, start, now=DEMO_DAY) if keep(event)))
    return import_file(path, home.events, DEMO_DAY)


def from_widget(event: dict[str, Any]) -> bool:
    """Whether a demo event's answer is a call that the widget makes."""
    return any(call["name"] in WIDGET for turn in event["messages"] for call in turn.get("tool_calls") or [])


def two_releases(home: Home, recipe: Recipe) -> tuple[DatasetRelease, DatasetRelease]:
    """The demo's two releases: before the widget came, and with what it brought; those that are there are kept."""
    from pocketloop.data.release import latest_release, parents, read_release

    newest = latest_release(home, recipe.adapter)
    chain = parents(home, read_release(home.releases / newest)) if newest else []
    if newest and chain:
        return read_release(home.releases / chain[0]), read_release(home.releases / newest)
    post_events(home, 0, FIRST)
    first = read_release(home.releases / newest) if newest else curate(home, recipe, DEMO_DAY)
    post_events(home, FIRST, THEN, from_widget)
    return first, curate(home, recipe, DEMO_DAY)


def workplace(home: Home, *inputs: str) -> Path:
    """The folder in which what was made by hand from these inputs is kept."""
    return home.root / "by-hand" / sha256_text("\n".join(inputs))[:16]


def curate(home: Home, recipe: Recipe, now: datetime) -> DatasetRelease:
    """From the log and the example files to a release, as `pipelines.curate` makes it; nobody's verdicts are asked for.

    Raises:
        DataError: nothing is left to learn from, or a stage refuses what it was given.
    """
    from pocketloop.contracts.collecting import ComputeConfig
    from pocketloop.contracts.events import Message
    from pocketloop.contracts.examples import Example
    from pocketloop.data.collect import collect
    from pocketloop.data.drift import drift
    from pocketloop.data.example_files import stream_examples
    from pocketloop.data.release import latest_release, write_release
    from pocketloop.data.select.selecting import select
    from pocketloop.data.shards import MANIFEST, LogShards
    from pocketloop.data.validate import validate
    from pocketloop.labeling.label import label
    from pocketloop.privacy.pseudonyms import load_key
    from pocketloop.privacy.scrubber import Scrubber, slots_of, vocabulary_of
    from pocketloop.privacy.shards import scrub_shards

    def prompts(uri: str, limit: int | None) -> list[list[Message]]:
        return [one.prompt for one in stream_examples(uri, recipe.task) if isinstance(one, Example)][:limit]

    work, catalogue = workplace(home, "curate", recipe.adapter), load_catalogue(recipe)
    collected = collect(recipe, home.events, work / "collected", now)
    scrubber = Scrubber(recipe.scrub, load_key(home), slots_of(catalogue), vocabulary_of(catalogue))
    shards = LogShards(home.events, work / "collected" / MANIFEST)
    cache, kept = home.cache / "scrub", home.cache / "curation"
    scrubbed = scrub_shards(shards, _fresh(work / "scrubbed"), scrubber, cache, collected=work / "collected")
    validated = validate(work / "scrubbed", recipe, catalogue, _fresh(work / "validated"), kept=kept)
    previous = latest_release(home, recipe.adapter, Folder.of(work / "validated").digest)
    reference = home.releases / previous if previous else None
    drifted = drift(work / "validated", recipe, reference, _fresh(work / "drift"))
    labelled = label(work / "validated", recipe, catalogue, _fresh(work / "labelled"), kept=kept)
    selected = select(
        work / "labelled",
        recipe,
        _fresh(work / "selected"),
        evaluation={wanted.name: prompts(wanted.uri, wanted.limit) for wanted in recipe.evaluation.sets},
        previous=reference,
        compute=ComputeConfig(workers=1),
        work=_fresh(work / "selecting"),
        kept=kept,
    )
    return write_release(
        home,
        recipe,
        scrubbed=work / "scrubbed",
        validated=work / "validated",
        selected=work / "selected",
        collect=collected,
        scrub=scrubbed,
        validation=validated,
        drift=drifted,
        label=labelled,
        select=selected,
    )


class Made(NamedTuple):
    """A trained adapter (a peft folder), the file for phones, and how training went."""

    adapter: Path
    file: Path
    report: TrainReport


def train(home: Home, recipe: Recipe, release: DatasetRelease, champion: "Champion | None" = None) -> Made:
    """Train on a release, from the base or on top of `champion`, and export; the same inputs train once."""
    from pocketloop.export.adapter import export_adapter
    from pocketloop.export.base import prepare_base
    from pocketloop.tasks.tasks import TaskSpec
    from pocketloop.training.run import train_adapter
    from steps.training_data import training_data

    base, task = load_base_config(recipe.base), TaskSpec.of(recipe, load_catalogue(recipe))
    work = workplace(home, "train", recipe.digest, release.digest, str(champion.adapter) if champion else "")
    learnt = training_data(dataset(home, release), recipe, task, champion)
    start = champion.adapter if champion else None
    report = train_adapter(
        base,
        learnt.data,
        task,
        recipe.train,
        work / "adapter",
        work / "training",
        on_progress=lambda progress: None,
        start=start,
    )
    prepared = prepare_base(base, recipe.export.gguf.base, home.bases)
    made = export_adapter(work / "adapter", prepared, work / "exported", recipe.export, task, merge_into=base)
    return Made(work / "adapter", made.path, report)


def dataset(home: Home, release: DatasetRelease) -> Folder:
    """The splits of a release."""
    return Folder.of(home.releases / release.digest / "splits")


def as_champion(home: Home, made: Made, release: DatasetRelease, version: str) -> "Champion":
    """`made`, trained on `release`, as what a later training goes on from."""
    from steps.champion import Champion
    from steps.examples import split_examples

    seen = (example.example_id for example in split_examples(dataset(home, release), "train", demo_recipe()))
    return Champion(version, made.adapter, frozenset(seen))


def ask(
    home: Home, recipe: Recipe, release: DatasetRelease, files: Mapping[str, Path | None]
) -> tuple[EvaluationReport, Outcomes]:
    """Ask each model of `files` (name to adapter file; `None` is the base alone) the recipe's first evaluation set."""
    from pocketloop.evaluation.slices import slice_results
    from pocketloop.evaluation.spent import set_digest
    from pocketloop.evaluation.suite import confusion_counts, run_set
    from pocketloop.export.base import prepare_base
    from pocketloop.models.llama_cpp import LlamaCppGenerator
    from pocketloop.tasks.tasks import TaskSpec
    from steps.examples import evaluation_sets

    base, task = load_base_config(recipe.base), TaskSpec.of(recipe, load_catalogue(recipe))
    prepared = prepare_base(base, recipe.export.gguf.base, home.bases)
    name, examples = next(iter(evaluation_sets(dataset(home, release), recipe).items()))
    report, outcomes = EvaluationReport(results=[], sets={name: set_digest(examples)}), {}
    with LlamaCppGenerator(prepared.quantized, prepared.tokenizer, context=base.context) as generator:
        for model, file in files.items():
            generator.set_adapter(file)
            result, found = run_set(generator, examples, task, recipe.evaluation.max_new_tokens, model, name)
            report.results.append(result)
            report.slices += slice_results(found, model, name, task.metrics[0])
            outcomes[model] = found
    report.confusion = confusion_counts(next(iter(outcomes.values())))
    return report, outcomes


def _fresh(folder: Path) -> Path:
    """The folder without what an earlier call left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder
