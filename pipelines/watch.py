"""Watch: sign again what expires → telemetry → verdict → widen, hold or roll back → tell people."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from steps.announce import announce
from steps.decide import decide
from steps.refresh import refresh


@pipeline(name="watch", execution_mode=ExecutionMode.FAIL_FAST)
def watch(adapter: str, as_of: str) -> None:
    """One look at every running rollout (of one adapter, or of all when it is empty)."""
    refresh()
    announce(decide(adapter, as_of))
