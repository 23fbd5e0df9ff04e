"""`pocketloop data scrub`: take personal data out of a file of events or examples."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say
from pocketloop.contracts.home import Home

EPILOG = "Example: pocketloop data scrub phones.jsonl.gz --out scrubbed.jsonl --report scrubbed.html"


def add_to(group: typer.Typer) -> None:
    """Add the command to the group `data`."""
    group.command("scrub", epilog=EPILOG)(scrub)


def scrub(
    file: Annotated[
        str, typer.Argument(help="Events or examples as JSON lines, plain or gzip; - reads standard input.")
    ],
    out: Annotated[Path, typer.Option(help="Where the scrubbed records go; .gz compresses.")],
    recipe: Annotated[str, typer.Option(help="Scrub as this recipe does; by default, for everything known.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write counts and figures as a page (.html).")] = None,
    as_json: AsJson = False,
) -> None:
    """Replace personal data in a file by typed pseudonyms; a record that is unclear is left out.

    Every record keeps its format. Pseudonyms are made with the home's key: they agree with those in its releases.
    """
    from pocketloop.contracts.loading import load_catalogue, load_recipe
    from pocketloop.contracts.recipe import ScrubConfig
    from pocketloop.data.heldout_audit import heldout_audit
    from pocketloop.data.scrub_file import scrub_file
    from pocketloop.privacy.pseudonyms import load_key
    from pocketloop.privacy.scrubber import Scrubber, slots_of, vocabulary_of

    home, known = Home(), load_recipe(recipe) if recipe else None
    config = known.scrub if known else ScrubConfig()
    catalogue = load_catalogue(known) if known else None
    scrubber = Scrubber(config, load_key(home), slots_of(catalogue), vocabulary_of(catalogue))
    done = scrub_file(file, out, scrubber, page=report, audit=heldout_audit(config, home.cache) if report else None)
    if as_json:
        emit(done)
        return
    say(f"{done.count.kept:,} of {done.count.entered:,} records in {out}; {sum(done.found.values()):,} values replaced")
    for kind, count in sorted(done.found.items(), key=lambda pair: -pair[1]):
        say(f"  {count:7,} {kind}")
    if done.count.left_out:
        say("left out:")
        for reason, count in done.count.left_out.items():
            say(f"  {count:7,} {reason}")
    if report:
        say(f"report: {report}")
