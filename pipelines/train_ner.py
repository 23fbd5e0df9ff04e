"""Rebuild the scrubber's own recognizer: generate, train, audit, package."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from steps.train_ner import audit_recognizer, generate_corpus, package_recognizer, train_recognizer


@pipeline(name="train_ner", execution_mode=ExecutionMode.FAIL_FAST)
def train_ner(sentences: int, seed: int, audit_rows: int, out: str) -> None:
    """From a seed to the model that is shipped in `pocketloop/privacy/ner/model`."""
    corpus = generate_corpus(sentences, seed)
    model = train_recognizer(corpus, sentences, seed)
    audit = audit_recognizer(model, audit_rows)
    package_recognizer(model, audit, out)
