"""Train the scrubber's own recognizer of names and addresses, audit it, and ship it if it is good enough."""

from itertools import islice
from pathlib import Path
from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.reports import LeakAudit
from steps.stage import BY_CONTENT, stage

_CORPUS = "sentences.jsonl"


@step(cache_policy=BY_CONTENT)
def generate_corpus(sentences: int, seed: int) -> Annotated[Folder, "ner_corpus"]:
    """Generate labelled sentences; one seed always gives the same."""
    from pocketloop.privacy.ner.corpus import rows, write_rows

    with stage("corpus") as this:
        out = this.scratch / "corpus"
        spans = write_rows(islice(rows(seed), sentences), out / _CORPUS)
        this.done(f"{sentences} sentences, {sum(spans.values())} labelled spans", spans=spans)
        return Folder.of(out)


@step(cache_policy=BY_CONTENT)
def train_recognizer(corpus: Folder, sentences: int, seed: int) -> Annotated[Folder, "ner_model"]:
    """Train the tagger, each sentence seen once."""
    from pocketloop.privacy.ner.corpus import read_rows
    from pocketloop.privacy.ner.train import train_ner

    with stage("recognizer") as this:
        out = this.scratch / "model"
        train_ner(read_rows(corpus / _CORPUS), out, size=sentences, seed=seed)
        folder = Folder.of(out)
        size = sum(path.stat().st_size for path in out.iterdir())
        this.done(f"{size / 1e6:.1f} MB, {folder.digest[:12]}", bytes=size, digest=folder.digest)
        return folder


@step(cache_policy=BY_CONTENT)
def audit_recognizer(model: Folder, rows: int) -> Annotated[LeakAudit, "ner_audit"]:
    """Recall and precision by type of the whole scrubber with this model, on the final held-out texts."""
    from pocketloop.contracts.recipe import ScrubConfig
    from pocketloop.data.demo.pii_heldout import heldout_names, heldout_pii
    from pocketloop.privacy.audit import leak_audit

    with stage("audit") as this:
        texts = (row.model_dump() for row in heldout_pii("final", rows))
        audit = leak_audit(ScrubConfig(), texts, heldout_names("final"), model.path)
        figures = {line.type: (round(line.recall.value, 4), round(line.precision.value, 4)) for line in audit.types}
        this.done(f"{rows} held-out texts, recall and precision of names {figures.get('PERSON')}", figures=figures)
        return audit


@step(enable_cache=False)
def package_recognizer(model: Folder, audit: LeakAudit, out: str) -> None:
    """Put the model and its audit where they are shipped from; one below the floors is refused."""
    from pocketloop.privacy.ner.package import package

    with stage("package") as this:
        package(model.path, audit, Path(out))
        this.done(f"{out}: meets the floors on {audit.rows} held-out texts")
