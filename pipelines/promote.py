"""Promote: an approved version → signed publish → canary at the ladder's first rung."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from steps.approval import approval
from steps.publish import publish
from steps.start_canary import start_canary


@pipeline(name="promote", execution_mode=ExecutionMode.FAIL_FAST)
def promote(adapter: str, as_of: str) -> None:
    """From a reviewer's approval in MLflow to the first phones; each stage finishes what an earlier run began."""
    approved, bundle = approval(adapter)
    published = publish(approved, bundle)
    start_canary(published, bundle, as_of)
