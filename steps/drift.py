"""Drift: Evidently compares descriptors of this data with the previous release's."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import DriftReport
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT)
def drift(
    recipe: Recipe, validated: Folder, previous: str
) -> tuple[Annotated[Folder, "drift_page"], Annotated[DriftReport, "drift_report"]]:
    """Compare with release `previous` (its digest; empty when there is none yet)."""
    from pocketloop.data.drift import drift as measure_drift

    with stage("drift") as this:
        reference = Home().releases / previous if previous else None
        report = measure_drift(validated.path, recipe, reference, this.scratch)
        if report.reference is None:
            this.done("no previous release to compare with")
        else:
            this.done(f"{report.share:.0%} of the columns drifted from {report.reference[:12]}", share=report.share)
        if report.drifted and recipe.drift.on_drift == "stop":
            raise DataError(
                f"{report.share:.0%} of the columns drifted (drift.max_share is {recipe.drift.max_share:.0%}): "
                "look at the drift report, then raise the bound or set drift.on_drift to warn"
            )
        return Folder.of(this.scratch), report
