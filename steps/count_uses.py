"""Count uses: how often each evaluation set has decided about this adapter before."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder, sha256_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import EvaluationReport, SetUses
from steps.stage import stage


@step(enable_cache=False)
def count_uses(recipe: Recipe, exported: Folder, evaluation_report: EvaluationReport) -> Annotated[SetUses, "set_uses"]:
    """Look up in the registry which versions were judged on these sets before this adapter first was."""
    from pocketloop.export.gguf_files import exported_file
    from pocketloop.registry.set_uses import uses_before

    with stage("uses") as this:
        file = exported_file(exported.path)
        found = uses_before(Home(), recipe.adapter, evaluation_report, file.name, sha256_file(file))
        this.done(", ".join(f"{use.set} has decided {len(use.decided)} times before" for use in found.uses))
        return found
