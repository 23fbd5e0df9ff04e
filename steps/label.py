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
        out = this.scratch / "labelled"
        report = label_records(validated.path, recipe, load_catalogue(recipe), out)
        this.done(
            f"{report.count.kept} examples ({report.corrected} corrected by their user), "
            f"{sum(report.count.left_out.values())} left out, {sum(report.pairs.values())} pairs; {_kappas(report)}",
            left_out=report.count.left_out,
            pairs=report.pairs,
            rated=report.rated,
            kappa={found.source: found.kappa for found in report.agreement if found.kappa is not None},
        )
        return Folder.of(out), report


def _kappas(report: LabelReport) -> str:
    told = [
        f"kappa {found.kappa:.2f} on {found.n} {'thumbs' if found.source == 'thumbs' else 'verdicts of people'}"
        for found in report.agreement
        if found.kappa is not None
    ]
    return ", ".join(told) or "no rated answers"
