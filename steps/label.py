"""Label: which answers are right enough to learn from, and how well that verdict agrees with people."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import LabelReport
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT)
def label(
    recipe: Recipe, validated: Folder
) -> tuple[Annotated[Folder, "labelled"], Annotated[LabelReport, "label_report"]]:
    """Turn scrubbed events into examples with an answer that the judge and the person stand behind."""
    from pocketloop.labeling.label import label as label_records

    with stage("label") as this:
        report = label_records(validated.path, recipe, load_catalogue(recipe), this.scratch)
        kappa = (
            "no rated answers" if report.kappa is None else f"kappa {report.kappa:.2f} on {report.rated} rated answers"
        )
        this.done(
            f"{report.examples} examples ({report.corrected} corrected by their user), "
            f"{sum(report.rejected.values())} rejected; {kappa}",
            rejected=report.rejected,
            kappa=report.kappa if report.kappa is not None else "none",
            rated=report.rated,
        )
        return Folder.of(this.scratch), report
