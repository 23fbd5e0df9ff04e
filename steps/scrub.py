"""Scrub: personal data becomes consistent pseudonyms; what cannot be scrubbed with confidence is left out."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_catalogue, load_compute
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import ScrubReport
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT)
def scrub(
    recipe: Recipe, collected: Folder
) -> tuple[Annotated[Folder, "scrubbed"], Annotated[ScrubReport, "scrub_report"]]:
    """Scrub shard by shard, straight from the log; a shard that was scrubbed before is taken from the cache."""
    from pocketloop.data.heldout_audit import heldout_audit
    from pocketloop.data.shards import MANIFEST, LogShards
    from pocketloop.privacy.pseudonyms import load_key
    from pocketloop.privacy.scrubber import Scrubber, slots_of, vocabulary_of
    from pocketloop.privacy.shards import scrub_shards

    with stage("scrub") as this:
        home = Home()
        catalogue = load_catalogue(recipe)
        scrubber = Scrubber(recipe.scrub, load_key(home), slots_of(catalogue), vocabulary_of(catalogue))
        source, out = LogShards(home.events, collected / MANIFEST), this.scratch / "scrubbed"
        report = scrub_shards(
            source,
            out,
            scrubber,
            home.cache / "scrub",
            collected=collected.path,
            compute=load_compute(),
            audit=heldout_audit(recipe.scrub, home.cache),
        )
        left_out = sum(report.count.left_out.values())
        total = report.reused_shards + report.scrubbed_shards
        this.done(
            f"{report.count.kept} records, {sum(report.found.values())} values replaced, {left_out} "
            f"quarantined, {report.caught} leaks withheld; {report.reused_shards} of {total} shards reused",
            found=report.found,
            quarantined=left_out,
            caught=report.caught,
        )
        return Folder.of(out), report
