"""Retrain, the main job: curate the newest data, then train on it, for one recipe."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from pipelines.curate import curate_data
from pipelines.train import train_on
from pocketloop.contracts.recipe import BaseConfig, Recipe


@pipeline(name="retrain", execution_mode=ExecutionMode.FAIL_FAST)
def retrain(recipe: Recipe, base: BaseConfig) -> None:
    """From the event log to a registered candidate."""
    dataset, fingerprints, release = curate_data(recipe)
    train_on(recipe, base, dataset, fingerprints, release)
