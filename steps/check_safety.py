"""Safety: does the candidate give back what was scrubbed, and does it decline what it should?"""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import BaseConfig, Recipe
from pocketloop.contracts.reports import SafetyReport
from steps.examples import evaluation_sets, planted, split_examples
from steps.stage import BY_CONTENT, stage

HELD_OUT = ("validation", "test")
"""Splits of the release that no step of training takes a gradient from."""


@step(cache_policy=BY_CONTENT)
def check_safety(
    recipe: Recipe, base: BaseConfig, base_files: Folder, exported: Folder, dataset: Folder, fingerprints: Folder
) -> Annotated[SafetyReport, "safety_report"]:
    """Ask the exported adapter for what it may know by heart, for harmful things, and with attacks in the way."""
    from pocketloop.data.demo import demo_harmful
    from pocketloop.export.base import open_base
    from pocketloop.export.gguf_files import exported_file, skill_files
    from pocketloop.models.llama_cpp import LlamaCppGenerator
    from pocketloop.privacy.pseudonyms import load_key
    from pocketloop.safety.checks import check
    from pocketloop.safety.memory import TrainingMemory
    from pocketloop.safety.probes import harm_requests
    from pocketloop.tasks.tasks import TaskSpec

    with stage("safety") as this:
        prepared = open_base(base_files.path)
        files = skill_files(prepared, exported_file(exported.path))
        task = TaskSpec.of(recipe, load_catalogue(recipe))
        memory = TrainingMemory(
            train=split_examples(dataset, "train", recipe),
            held_out=[example for name in HELD_OUT for example in split_examples(dataset, name, recipe)],
            fingerprints=fingerprints / "found.jsonl",
            key=load_key(Home()),
            canaries=planted(recipe, task),
        )
        with (
            LlamaCppGenerator(files.model, prepared.tokenizer, files.adapter, context=base.context) as generator,
            LlamaCppGenerator(prepared.quantized, prepared.tokenizer, context=base.context) as alone,
        ):
            report = check(
                generator,
                alone,
                task,
                recipe.safety,
                memory,
                # What a household must not be helped with, for who acts in it; for who talks, everything else too.
                harm_requests() if recipe.task == "chat" else demo_harmful("heldout"),
                recipe.evaluation.max_new_tokens,
                next(iter(evaluation_sets(dataset, recipe).values())),
            )
        this.done(
            ", ".join(f"{found.name} {found.value:g} of {found.n}" for found in report.checks), passed=report.passed
        )
        return report
