"""Validate: Great Expectations over what was scrubbed; rows that break a rule are left out with the reason."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import ValidationReport
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT)
def validate(
    recipe: Recipe, scrubbed: Folder
) -> tuple[Annotated[Folder, "validated"], Annotated[ValidationReport, "validation_report"]]:
    """Check every record and the dataset as a whole."""
    from pocketloop.data.validate import validate as validate_records

    with stage("validate") as this:
        report = validate_records(
            scrubbed.path, recipe, load_catalogue(recipe), this.scratch, kept=Home().cache / "curation"
        )
        held, count = sum(report.expectations.values()), report.count
        this.done(
            f"{count.entered} rows, {held} of {len(report.expectations)} expectations hold, "
            f"{count.entered - count.kept} rows left out",
            expectations=report.expectations,
            left_out=count.left_out,
        )
        return Folder.of(this.scratch), report
