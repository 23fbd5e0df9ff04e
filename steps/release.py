"""Release: split by group and freeze the result, named by its content."""

import shutil
from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder, atomic_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    CollectReport,
    DatasetRelease,
    DriftReport,
    LabelReport,
    ScrubReport,
    SelectReport,
    ValidationReport,
)
from steps.stage import BY_CONTENT, stage


@step(enable_cache=False)
def previous_release(recipe: Recipe, validated: Folder) -> Annotated[str, "previous_release"]:
    """Digest of this adapter's newest release that was made from other data; empty when there is none."""
    from pocketloop.data.release import latest_release

    return latest_release(Home(), recipe.adapter, validated.digest) or ""


@step(enable_cache=False)
def load_release(
    recipe: Recipe,
) -> tuple[Annotated[Folder, "dataset"], Annotated[Folder, "fingerprints"], Annotated[DatasetRelease, "release"]]:
    """The newest release of this adapter, for a run that only trains."""
    from pocketloop.contracts.errors import DataError
    from pocketloop.data.forget import withdrawn
    from pocketloop.data.release import latest_release, read_release

    with stage("dataset") as this:
        digest = latest_release(Home(), recipe.adapter)
        if digest is None:
            raise DataError(f"{recipe.adapter} has no dataset release yet; run `pocketloop curate {recipe.adapter}`")
        forgotten = withdrawn(Home(), digest)
        if forgotten:
            raise DataError(
                f"{recipe.adapter}: release {digest[:12]} holds records of a device that was forgotten on "
                f"{forgotten[:10]}; run `pocketloop curate {recipe.adapter}`, which leaves them out"
            )
        folder = Home().releases / digest
        this.done(f"release {digest[:12]}")
        return Folder.of(folder / "splits"), Folder.of(folder / "found"), read_release(folder)


@step(cache_policy=BY_CONTENT)
def release(
    recipe: Recipe,
    scrubbed: Folder,
    validated: Folder,
    selected: Folder,
    collect_report: CollectReport,
    scrub_report: ScrubReport,
    validation_report: ValidationReport,
    drift_report: DriftReport,
    label_report: LabelReport,
    select_report: SelectReport,
) -> tuple[
    Annotated[Folder, "dataset"],
    Annotated[Folder, "fingerprints"],
    Annotated[DatasetRelease, "release"],
    Annotated[Folder, "card"],
]:
    """Write the splits and everything that led to them under the home's `releases/`.

    `fingerprints` are keyed digests of what was scrubbed: the safety stage looks for them in what the model says.
    `card` is the release's page, to be opened from ZenML.
    """
    from pocketloop.data.release import write_release

    with stage("release") as this:
        written = write_release(
            Home(),
            recipe,
            scrubbed=scrubbed.path,
            validated=validated.path,
            selected=selected.path,
            collect=collect_report,
            scrub=scrub_report,
            validation=validation_report,
            drift=drift_report,
            label=label_report,
            select=select_report,
        )
        folder = Home().releases / written.digest
        with atomic_file(this.scratch / "card" / "card.html") as temporary:
            shutil.copyfile(folder / "card.html", temporary)
        splits = ", ".join(f"{count} {name}" for name, count in written.splits.items())
        pairs, rated = sum(written.pairs.values()), sum(written.rated.values())
        this.done(
            f"{written.digest[:12]}: {splits}, {pairs} pairs, {rated} rated",
            digest=written.digest,
            splits=written.splits,
            pairs=written.pairs,
            rated=written.rated,
        )
        return (
            Folder.of(folder / "splits"),
            Folder.of(folder / "found"),
            written,
            Folder.of(this.scratch / "card"),
        )
