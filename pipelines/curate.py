"""Curate: collect → scrub → validate → drift → label → select → split → dataset release."""

from typing import Any

from zenml import pipeline
from zenml.enums import ExecutionMode

from pocketloop.contracts.recipe import Recipe
from steps.champion import champion
from steps.collect import collect
from steps.drift import drift
from steps.label import label, people
from steps.release import previous_release, release
from steps.sample_answers import sample_answers
from steps.scrub import scrub
from steps.select import evaluation_prompts, select
from steps.validate import validate


@pipeline(name="curate", execution_mode=ExecutionMode.FAIL_FAST)
def curate(recipe: Recipe) -> None:
    """From the event log and example files to an immutable dataset release."""
    curate_data(recipe)


def curate_data(recipe: Recipe) -> Any:
    """The stages up to the release; gives its data, the fingerprints of what was scrubbed, and its record."""
    collected, collect_report = collect(recipe.view("data"))
    scrubbed, scrub_report = scrub(recipe.view("scrub"), collected)
    validated, validation_report = validate(recipe.view(), scrubbed)
    previous = previous_release(recipe.view(), validated)
    _, drift_report = drift(recipe.view("drift"), validated, previous)
    sampled = sample_answers(recipe.view("label", "prompt", "evaluation", "export"), validated, champion(recipe.view()))
    labelled, label_report = label(recipe.view("label"), validated, people(recipe.view("label")), sampled)
    prompts = evaluation_prompts(recipe.view("evaluation"))
    selected, select_report = select(recipe.view("select", "evaluation"), labelled, prompts, previous)
    dataset, fingerprints, made, _ = release(
        recipe.view("data"),
        scrubbed,
        validated,
        selected,
        collect_report,
        scrub_report,
        validation_report,
        drift_report,
        label_report,
        select_report,
    )
    return dataset, fingerprints, made
