"""Both shapes of assistant, trained small from their recipes: the folders that `pocketloop shapes compare` reads.

    python benchmarks/shapes.py OUT [NAME ...] [--times 1] [--epochs 1]
    pocketloop shapes compare universal --hybrid gateway,functions,wellness,math,logistics,persona --folder OUT

Each recipe is trained for `EPOCHS` on the first `EXAMPLES` of its example sources (no events), exported, and
a gateway's confidence calibrated, all without a pipeline. Both shapes learn from the same examples. What is in OUT
already is not trained again.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import write_json
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe
from pocketloop.contracts.recipe import ExamplesSource, Recipe
from pocketloop.contracts.reports import CALIBRATION
from pocketloop.data.example_files import read_examples
from pocketloop.evaluation.calibration import calibrate
from pocketloop.export.adapter import export_adapter
from pocketloop.export.base import prepare_base
from pocketloop.models.llama_cpp import LlamaCppGenerator
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, TrainingData

NAMES = ("gateway", "functions", "wellness", "math", "logistics", "persona", "universal")
EPOCHS = {"gateway": 2}
"""Elsewhere one."""
EXAMPLES = {"gateway": 2700, "functions": 1200, "wellness": 600, "math": 1200, "logistics": 1000, "persona": 600}
"""By agent: about five minutes of one processor in all."""


def main() -> None:
    """Train what is missing, then export and calibrate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--times", type=float, default=1, help="so many times `EXAMPLES`")
    parser.add_argument("--epochs", type=float, help="instead of `EPOCHS`")
    arguments = parser.parse_args()
    for name in arguments.names:
        epochs = arguments.epochs or EPOCHS.get(name, 1)
        # Sets of these sizes need no balance: repeating the smaller ones would give one shape more to learn from.
        recipe = load_recipe(name, [f"train.stages.0.sft.epochs={epochs}", "train.mix=as_is"])
        train, validation = examples_of(recipe, arguments.times)
        folder = arguments.out / name
        if not (folder / "adapter").is_dir():
            learn(recipe, train, validation, folder)
        finish(recipe, validation, folder)


def examples_of(recipe: Recipe, times: float) -> tuple[list[Example], list[Example]]:
    """Training and validation examples: of each source's first ones, every twentieth is validated on."""
    train: list[Example] = []
    validation: list[Example] = []
    for source in recipe.data.sources:
        if isinstance(source, ExamplesSource):
            found, _ = read_examples(source.uri, recipe.task, source.role or "")
            for number, example in enumerate(found[: round(times * EXAMPLES[source.role or recipe.adapter])]):
                (validation if number % 20 == 0 else train).append(example)
    return train, validation


def learn(recipe: Recipe, train: list[Example], validation: list[Example], folder: Path) -> None:
    """Train one adapter into `folder`/adapter."""
    started = time.process_time()
    report = train_adapter(
        load_base_config(recipe.base),
        TrainingData(Split(train), Split(validation)),
        TaskSpec.of(recipe, load_catalogue(recipe)),
        recipe.train,
        folder / "adapter",
        folder / "work",
        lambda progress: print(f"  {progress}", flush=True),
        every_seconds=20,
    )
    spent = time.process_time() - started
    print(f"{recipe.adapter}: {len(train)} examples, {report.tokens} tokens, {spent:.0f} CPU-s", flush=True)


def finish(recipe: Recipe, validation: list[Example], folder: Path) -> None:
    """Write what a bundle holds of it: `adapter.gguf`, `recipe.json`, `catalogue.json`, `calibration.json`."""
    base = prepare_base(load_base_config(recipe.base), recipe.export.gguf.base, Home().bases)
    if not (folder / "adapter.gguf").is_file():
        task = TaskSpec.of(recipe, load_catalogue(recipe))
        export_adapter(folder / "adapter", base, folder, recipe.export, task)
    if recipe.task == "intent":
        heldout, _ = read_examples(recipe.evaluation.sets[0].uri, recipe.task)
        task, most = TaskSpec.of(recipe, load_catalogue(recipe)), recipe.evaluation.max_new_tokens
        with LlamaCppGenerator(base.quantized, base.tokenizer, folder / "adapter.gguf", context=256) as generator:
            fitted = calibrate(generator, validation, heldout, task, most)
        if fitted:
            print(f"{recipe.adapter}: {fitted.calibration}", flush=True)
            write_json(folder / CALIBRATION, fitted.calibration)
    write_json(folder / "recipe.json", recipe)
    if catalogue := load_catalogue(recipe):
        write_json(folder / "catalogue.json", catalogue.model_dump(exclude_defaults=True))


if __name__ == "__main__":
    main()
