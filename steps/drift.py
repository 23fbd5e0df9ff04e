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
            return Folder.of(this.scratch), report
        drifted = f"{report.share:.0%} of the columns drifted from {report.reference[:12]}"
        if report.verdict == "fail":
            raise DataError(
                f"{drifted} (drift.fail is {recipe.drift.fail:.0%}): look at the drift report, then mend the source or "
                "raise the bound knowingly"
            )
        remark = f", more than drift.warn ({recipe.drift.warn:.0%}) allows" if report.verdict == "warn" else ""
        this.done(drifted + remark, share=report.share, verdict=report.verdict)
        return Folder.of(this.scratch), report
