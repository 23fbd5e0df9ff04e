"""`pocketloop data train-ner`: rebuild the scrubber's own recognizer."""

from pathlib import Path
from typing import Annotated

import typer

from pocketloop.cli.console import say
from pocketloop.cli.running import environment, run_pipeline


def add_to(group: typer.Typer) -> None:
    """Add the command to the group `data`."""
    group.command("train-ner", epilog="Example: pocketloop data train-ner --out build/ner")(train_ner)


def train_ner(
    out: Annotated[Path | None, typer.Option(help="Folder of the model; by default the one that is shipped.")] = None,
    sentences: Annotated[int | None, typer.Option(min=1000, help="Generated sentences to train on.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another model.")] = 7,
    audit_rows: Annotated[int, typer.Option(min=100, help="Held-out texts to measure it on.")] = 10_000,
    stack: Annotated[str, typer.Option(help="stacks/NAME.yaml, or a file.")] = "local",
) -> None:
    """Generate sentences, train the recognizer, audit it on held-out texts, and put it in its place.

    Takes some ten minutes of one core. A model below the floors of recall and precision is refused.
    """
    environment()
    from pipelines.train_ner import train_ner as pipeline
    from pocketloop.privacy.ner.model import EMBEDDED
    from pocketloop.privacy.ner.train import SENTENCES

    place = (out or EMBEDDED).resolve()
    run_pipeline(pipeline, stack, sentences=sentences or SENTENCES, seed=seed, audit_rows=audit_rows, out=str(place))
    say(f"recognizer: {place}")
