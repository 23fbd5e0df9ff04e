"""Scrub: personal data becomes consistent pseudonyms; what cannot be scrubbed with confidence is left out."""

import shutil
from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder, read_jsonl, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import ScrubReport
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT)
def scrub(
    recipe: Recipe, collected: Folder
) -> tuple[Annotated[Folder, "scrubbed"], Annotated[ScrubReport, "scrub_report"]]:
    """Scrub shard by shard; a shard that was scrubbed before is taken from the cache."""
    from pocketloop.privacy.pseudonyms import load_key
    from pocketloop.privacy.scrubber import Scrubber, slots_of
    from pocketloop.privacy.shards import scrub_shards

    with stage("scrub") as this:
        scrubber = Scrubber(recipe.scrub, load_key(Home()), slots_of(load_catalogue(recipe)))
        shards = sorted(collected.path.glob("events-*.jsonl"))
        out = this.scratch / "scrubbed"
        report = scrub_shards(shards, out, scrubber, Home().cache / "scrub")
        # Example files were written by a person to be learnt from; they travel beside the scrubbed events.
        shutil.copy(collected / "examples.jsonl", out / "examples.jsonl")
        left_out = [*read_jsonl(collected / "quarantine.jsonl"), *read_jsonl(out / "quarantine.jsonl")]
        write_jsonl(out / "quarantine.jsonl", left_out)
        total = report.reused_shards + report.scrubbed_shards
        this.done(
            f"{report.records} records, {sum(report.found.values())} values replaced, {report.quarantined} "
            f"quarantined, {report.leaks} leaks; {report.reused_shards} of {total} shards reused",
            found=report.found,
            quarantined=report.quarantined,
            leaks=report.leaks,
        )
        return Folder.of(out), report
