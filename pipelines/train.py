"""Train: dataset release → training → export → parity → budget → evaluate → safety → gates → register.

The adapter is exported before it is judged: the gates judge what the phone will run.
"""

from typing import Any

from zenml import pipeline
from zenml.enums import ExecutionMode

from pocketloop.contracts.loading import load_device_classes
from pocketloop.contracts.recipe import BaseConfig, Recipe
from steps.champion import ChampionRef, champion
from steps.check_safety import check_safety
from steps.count_uses import count_uses
from steps.evaluate import evaluate
from steps.export import export_gguf, measure_budget, parity
from steps.judge import judge
from steps.plan_rollout import plan_rollout
from steps.prepare_base import prepare_base
from steps.register import register
from steps.release import load_release
from steps.train_adapter import teachers_read, train_adapter, training_view


@pipeline(name="train", execution_mode=ExecutionMode.FAIL_FAST)
def train(recipe: Recipe, base: BaseConfig) -> None:
    """From the newest dataset release to a registered candidate."""
    dataset, fingerprints, release = load_release(recipe.view())
    train_on(recipe, base, dataset, fingerprints, release)


def train_on(recipe: Recipe, base: BaseConfig, dataset: Any, fingerprints: Any, release: Any) -> None:
    """The stages from a dataset release on; `dataset`, `fingerprints` and `release` are earlier steps' outputs."""
    base_files, manifest = prepare_base(base, recipe.export.gguf)
    served = champion(recipe.view())
    start = served if recipe.train.start == "champion" else ChampionRef()
    learnt = training_view(recipe)
    adapter, train_report = train_adapter(learnt, base, dataset, start, teachers_read(recipe))
    exported = export_gguf(recipe.view("prompt", "export"), base, base_files, adapter)
    measured = recipe.view("prompt", "train", "evaluation", "export")
    parity_report = parity(measured, base, base_files, adapter, exported, dataset)
    weighed = recipe.view("train", "evaluation", "export")
    budget = measure_budget(weighed, base, base_files, exported, load_device_classes())
    outcomes, evaluation = evaluate(measured, base, base_files, adapter, exported, dataset, served)
    asked = recipe.view("prompt", "train", "evaluation", "safety")
    safety = check_safety(asked, base, base_files, exported, dataset, fingerprints)
    bundle, decision = judge(
        recipe,
        manifest,
        release,
        train_report,
        adapter,
        exported,
        outcomes,
        evaluation,
        parity_report,
        budget,
        safety,
        served,
        plan_rollout(recipe.view("rollout"), manifest),
        count_uses(recipe.view(), exported, evaluation),
        dataset,
    )
    register(recipe.view(), bundle, evaluation, decision, release)
