"""Export: the adapter as a GGUF LoRA beside the shared, quantized base, and the proof that they behave alike."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import BaseConfig, Recipe
from pocketloop.contracts.reports import ParityReport
from steps.examples import evaluation_sets
from steps.stage import BY_CONTENT, stage

PARITY_EXAMPLES = 48


@step(cache_policy=BY_CONTENT)
def export_gguf(recipe: Recipe, base_files: Folder, adapter: Folder) -> Annotated[Folder, "exported"]:
    """Write `adapter.gguf`, bound to the base's digest and within the device's budget."""
    from pocketloop.export.adapter import export_adapter

    with stage("export") as this:
        size = export_adapter(adapter.path, base_files.path, this.scratch, recipe.export)
        this.done(f"adapter.gguf, {size / 1e6:.2f} MB of {recipe.export.budget.adapter_mb:g} MB", bytes=size)
        return Folder.of(this.scratch)


@step(cache_policy=BY_CONTENT)
def parity(
    recipe: Recipe, base: BaseConfig, base_files: Folder, adapter: Folder, exported: Folder, dataset: Folder
) -> Annotated[ParityReport, "parity_report"]:
    """Compare llama.cpp with transformers on held-out conversations: tokens, logits, and the adapter's effect."""
    from pocketloop.export.parity import parity as compare

    from pocketloop.tasks.tasks import TaskSpec

    with stage("parity") as this:
        task = TaskSpec.of(recipe, load_catalogue(recipe))
        examples = next(iter(evaluation_sets(dataset, recipe).values()))[:PARITY_EXAMPLES]
        conversations = [task.conversation(example.messages) for example in examples]
        report = compare(base, base_files.path, adapter.path, exported / "adapter.gguf", conversations, recipe.export)
        this.done(
            "; ".join(f"{r.name} top-1 {r.top1:.3f}, KL {r.kl:.1e}" for r in report.results)
            + f"; adapter effect {report.adapter_effect:.2f}",
            passed=report.passed,
            adapter_effect=report.adapter_effect,
        )
        return report
