"""Evaluate: the exported files as a phone runs them, beside the base alone, the champion, and transformers."""

from typing import Annotated

from pydantic import BaseModel
from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import BaseConfig, Recipe
from pocketloop.contracts.reports import EvaluationReport
from steps.examples import evaluation_sets
from steps.stage import BY_CONTENT, stage


class ChampionRef(BaseModel):
    """Which version the fleet's stable channel serves now; empty when nothing was ever promoted."""

    version: str = ""
    digest: str = ""


@step(enable_cache=False)
def champion(recipe: Recipe) -> Annotated[ChampionRef, "champion"]:
    """Look the champion up in the registry."""
    from pocketloop.registry.mlflow_store import champion as find

    found = find(Home(), recipe.adapter)
    return ChampionRef(version=found.version, digest=found.digest) if found else ChampionRef()


@step(cache_policy=BY_CONTENT)
def evaluate(
    recipe: Recipe,
    base: BaseConfig,
    base_files: Folder,
    adapter: Folder,
    exported: Folder,
    dataset: Folder,
    champion: ChampionRef,
) -> tuple[Annotated[Folder, "outcomes"], Annotated[EvaluationReport, "evaluation_report"]]:
    """Answer every held-out example with every model; outcomes are kept by example id, without text."""
    from contextlib import ExitStack

    from pocketloop.evaluation.suite import evaluate_models
    from pocketloop.models.bases import load_with_adapter
    from pocketloop.models.generators import TransformersGenerator
    from pocketloop.models.llama_cpp import LlamaCppGenerator
    from pocketloop.registry.mlflow_store import candidate, fetch_bundle
    from pocketloop.tasks.tasks import TaskSpec

    with stage("evaluate") as this, ExitStack() as open_models:
        runtime = open_models.enter_context(LlamaCppGenerator.of_base(base_files.path, base))
        adapters = {"adapter": exported / "adapter.gguf", "base": None}
        if champion.version:
            held = candidate(Home(), recipe.adapter, champion.version)
            adapters["champion"] = open_models.enter_context(fetch_bundle(Home(), held)) / "adapter.gguf"
        report = evaluate_models(
            {
                **{name: runtime.with_adapter(path) for name, path in adapters.items()},
                "transformers": lambda: TransformersGenerator(*load_with_adapter(base, adapter.path, "float32")),
            },
            evaluation_sets(dataset, recipe),
            TaskSpec.of(recipe, load_catalogue(recipe)),
            recipe.evaluation.max_new_tokens,
            this.scratch,
        )
        main = report.result("adapter")
        alone = report.result("base")
        assert main is not None and alone is not None
        this.done(
            f"on {main.set}: "
            + ", ".join(
                f"{name} {value.value:.3f} (base alone {alone.metrics[name].value:.3f})"
                for name, value in main.metrics.items()
            ),
            **{name: value.value for name, value in main.metrics.items()},
        )
        return Folder.of(this.scratch), report
