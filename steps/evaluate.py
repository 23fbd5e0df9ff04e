"""Evaluate: the exported files as a phone runs them, beside the base alone, the champion, and transformers."""

from contextlib import ExitStack
from typing import Annotated

from zenml import step

from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import BaseConfig, Recipe
from pocketloop.contracts.reports import EvaluationReport, SetResult
from pocketloop.evaluation.suite import Outcome
from pocketloop.models.answering import Answered
from pocketloop.models.generators import Generator
from pocketloop.tasks.tasks import TaskSpec
from steps.champion import ChampionRef, old_test_split
from steps.examples import evaluation_sets
from steps.measuring import add_perplexity, add_preference, add_router
from steps.stage import BY_CONTENT, library_digest, stage
from steps.training_work import evaluation_work

TRANSFORMERS_EXAMPLES = 256
"""Enough to see that the training framework agrees; what counts is what the phone runs."""
CHAMPIONS_OWN = "champion_test"
"""The set on which a candidate that went on from the champion is asked what it has forgotten."""


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
    from pocketloop.evaluation.slices import slice_results
    from pocketloop.evaluation.spent import set_digest
    from pocketloop.evaluation.suite import confusion_counts, run_set, write_outcomes
    from pocketloop.export.base import open_base
    from pocketloop.export.gguf_files import SkillFiles, exported_file, skill_files
    from pocketloop.models.bases import load_with_adapter
    from pocketloop.models.generators import TransformersGenerator
    from pocketloop.models.llama_cpp import LlamaCppGenerator
    from pocketloop.registry.mlflow_store import candidate, fetch_bundle

    report = EvaluationReport(results=[])
    with stage("evaluate") as this, ExitStack() as held:
        task = TaskSpec.of(recipe, load_catalogue(recipe))
        sets = evaluation_sets(dataset, recipe)
        if recipe.train.start == "champion" and champion.version:
            old = old_test_split(Home(), recipe, champion, dataset)
            sets |= {CHAMPIONS_OWN: old} if old else {}
        given = [recipe.digest, base.model_dump_json(), base_files.digest, adapter.digest, exported.digest]
        given += [dataset.digest, champion.digest, library_digest()]
        work = held.enter_context(evaluation_work(Home(), recipe.adapter, *given))
        prepared = open_base(base_files.path)
        models = {
            "adapter": skill_files(prepared, exported_file(exported.path)),
            "base": SkillFiles(prepared.quantized, None),
        }
        if champion.version:
            served = held.enter_context(fetch_bundle(Home(), candidate(Home(), recipe.adapter, champion.version)))
            models["champion"] = skill_files(prepared, exported_file(served))
        runtimes = {
            file: held.enter_context(LlamaCppGenerator(file, prepared.tokenizer, context=base.context))
            for file in {files.model: None for files in models.values()}
        }

        def running(files: SkillFiles) -> LlamaCppGenerator:
            runtimes[files.model].set_adapter(files.adapter)
            return runtimes[files.model]

        def measure(model: str, generator: Generator, name: str, examples: list[Example]) -> list[Outcome]:
            result, outcomes = run_set(
                generator,
                examples,
                task,
                recipe.evaluation.max_new_tokens,
                model,
                name,
                kept=work / f"{name}.{model}.jsonl",
                on_progress=lambda so_far: _tell(f"{name}: {model}", so_far),
            )
            report.results.append(result)
            if model != "transformers":
                report.slices += slice_results(outcomes, model, name, task.metrics[0])
            add_perplexity(result, generator, examples, task)
            write_outcomes(this.scratch / f"{name}.{model}.jsonl", outcomes)
            print(f"  {name}: {model} on {_took(result, len(examples))}", flush=True)
            return outcomes

        for name, examples in sets.items():
            report.sets[name] = set_digest(examples)
            for model, files in models.items():
                if name == CHAMPIONS_OWN and model == "base":
                    continue
                outcomes = measure(model, running(files), name, examples)
                if model == "adapter" and not report.confusion:
                    report.confusion = confusion_counts(outcomes)
        main = next(iter(sets))
        add_router(report, running(models["adapter"]), dataset, sets[main], task, recipe, this.scratch)
        if "champion" in models:
            add_preference(report, lambda model: running(models[model]), sets[main], task, recipe, this.scratch)
        trained = TransformersGenerator(*load_with_adapter(base, adapter.path, "float32"), context=base.context)
        measure("transformers", trained, main, sets[main][:TRANSFORMERS_EXAMPLES])
        this.done(_summary(report), **{f"{r.set}.{r.model}": _values(r) for r in report.results})
        return Folder.of(this.scratch), report


def _tell(what: str, so_far: Answered) -> None:
    if so_far.done < so_far.total:
        print(f"  {what}, {so_far}", flush=True)


def _took(result: SetResult, examples: int) -> str:
    """How long a set took, and what was not answered."""
    lost = "".join(f"; {count:,} not answered ({reason})" for reason, count in result.failures.items())
    speed = examples / max(result.seconds, 1e-9)
    return f"{examples:,} examples, {result.seconds:.0f} s, {speed:,.0f} items/s{lost}"


def _values(result: SetResult) -> dict[str, float]:
    return {name: round(estimate.value, 4) for name, estimate in result.metrics.items()}


def _summary(report: EvaluationReport) -> str:
    from pocketloop.evaluation.slices import describe

    main, *others = report.results
    alone = next(result for result in others if result.model == "base")
    scores = ", ".join(
        f"{name} {estimate.value:.3f}"
        + (f" (base alone {alone.metrics[name].value:.3f})" if name in alone.metrics else "")
        for name, estimate in main.metrics.items()
    )
    worst = report.worst_slice()
    return f"{main.set}: {scores}" + (f"; worst slice {describe(worst)}" if worst else "")
