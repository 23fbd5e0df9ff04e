"""What an adapter of the embedded base learns from public data: CLINC150's intents and SNIPS's function calls.

    python benchmarks/real_data.py [clinc150] [snips] [--data FOLDER] [--base tiny] [--choose] [--set KEY=VALUE]

Each data set is trained on as `benchmarks/recipes/NAME.yaml` says and scored once on the file that its authors held
out (`val.jsonl`), greedily, in transformers. `--choose` scores on a tenth of the training file instead, which is then
not trained on: the place to try settings. Minutes are processor time of training alone. The baseline is a linear SVM
on n-grams of words and characters, fitted on the same examples; it gives labels (function names), never arguments.
The data are not part of this repository (github clinc/oos-eval and sonos/nlu-benchmark, as `{"input", "output"}` and
`{"input", "function", "arguments"}` lines); what is absent is skipped.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pocketloop.contracts.examples import Example
from pocketloop.contracts.names import Task
from pocketloop.contracts.reports import Estimate

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "benchmarks" / "recipes"
SETS: dict[str, tuple[Task, str, dict[str, float]]] = {
    "clinc150": ("intent", "intent_accuracy", {"intent_accuracy": 0.90}),
    "snips": ("function_call", "function_name", {"function_name": 0.98, "function_exact": 0.60}),
}
"""Data set -> task, what the baseline is compared by, what we aim for."""
_CHOOSING_SEED = 5
_MINUTES = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SETS)} (default: all)")
    default = os.environ.get("POCKETLOOP_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="folder that holds NAME/train.jsonl")
    parser.add_argument("--base", default="tiny", help="a base's name or file")
    parser.add_argument("--choose", action="store_true", help="score on a tenth of the training file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--keep", type=Path, help="folder for the adapters (default: thrown away)")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(SETS)
    if unknown:
        parser.error(f"unknown data set {', '.join(sorted(unknown))}; known: {', '.join(SETS)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in arguments.names or SETS:
        folder = arguments.data / name
        if not (folder / "train.jsonl").is_file() or not (folder / "val.jsonl").is_file():
            print(f"{name}: skipped, {folder} has no train.jsonl and val.jsonl")
            continue
        measure(name, folder, arguments)


def measure(name: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Train on one data set, score, and print each metric with n, interval, aim and baseline."""
    from pocketloop.contracts.loading import load_base_config, load_config
    from pocketloop.contracts.training import TrainConfig
    from pocketloop.evaluation.suite import run_set
    from pocketloop.models.bases import load_base
    from pocketloop.models.generators import TransformersGenerator
    from pocketloop.tasks.derive import derive_catalogue
    from pocketloop.tasks.tasks import TaskSpec
    from pocketloop.training.adapters import open_adapter
    from pocketloop.training.run import train_adapter
    from pocketloop.training.stage import Split, TrainingData

    task_name, compared, aims = SETS[name]
    learnt, held, where = split(folder, task_name, choose=arguments.choose)
    training = load_config(RECIPES / f"{name}.yaml", TrainConfig, arguments.set)
    base = load_base_config(arguments.base)
    task = TaskSpec(task_name, derive_catalogue(learnt + held))
    with tempfile.TemporaryDirectory() as scratch:
        adapter = (arguments.keep or Path(scratch)) / name
        began = time.process_time()
        report = train_adapter(
            base, TrainingData(Split(learnt)), task, training, adapter, Path(scratch) / "work", every_seconds=60
        )
        minutes = (time.process_time() - began) / 60
        model, tokenizer = load_base(base, "float32")
        generator = TransformersGenerator(open_adapter(model, adapter), tokenizer, batch_size=64)
        result, _ = run_set(generator, held, task, 96 if task_name == "function_call" else 16, "adapter", name)
    print(f"\n{name}: {len(learnt):,} examples, scored on {len(held):,} of {where}")
    print(f"base {base.base}, {report.trainable:,} trainable parameters, {report.tokens:,} tokens")
    print(f"{minutes:.1f} CPU-minutes of training, {minutes / _MINUTES:.2f} x the {_MINUTES:.0f} we allow")
    baseline = svm(learnt, held)
    for metric, found in result.metrics.items():
        line = f"  {metric:16s} {show(found)}"
        if metric in aims:
            line += f"  aim {aims[metric]:.2f}: {'reached' if found.value >= aims[metric] else 'not reached'}"
        if metric == compared:
            line += f"  {found.value / baseline.value:.3f} x the linear SVM's {show(baseline)}"
        print(line, flush=True)


def split(folder: Path, task: Task, *, choose: bool) -> tuple[list[Example], list[Example], str]:
    """Examples to learn from, examples to score on, and where the latter come from."""
    from pocketloop.data.example_files import read_examples

    learnt, _ = read_examples(str(folder / "train.jsonl"), task)
    if not choose:
        return learnt, read_examples(str(folder / "val.jsonl"), task)[0], "val.jsonl"
    random.Random(_CHOOSING_SEED).shuffle(learnt)
    cut = len(learnt) // 10
    return learnt[cut:], learnt[:cut], "train.jsonl, which were not trained on"


def svm(learnt: Iterable[Example], held: Iterable[Example]) -> Estimate:
    """Share of right labels (function names) of a linear SVM on tf-idf of words, word pairs and 2 to 5 characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    model: Any = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        ),
        LinearSVC(C=1.0),
    )
    learnt, held = list(learnt), list(held)
    model.fit([words(example) for example in learnt], [label(example) for example in learnt])
    answers = model.predict([words(example) for example in held])
    right = sum(answer == label(example) for answer, example in zip(answers, held, strict=True))
    return Estimate.of_count(right, len(held))


def words(example: Example) -> str:
    """What the user said."""
    return example.prompt[-1].content


def label(example: Example) -> str:
    """The intent, or the called function's name."""
    calls = example.answer.tool_calls
    return calls[0].name if calls else example.answer.content


def show(estimate: Estimate) -> str:
    """Value and 95 % interval."""
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


if __name__ == "__main__":
    main()
