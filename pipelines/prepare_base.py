"""Prepare a base once: convert, quantize, golden probes, digest."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from pocketloop.contracts.recipe import BaseConfig, GgufConfig
from steps.prepare_base import prepare_base as prepare_base_step


@pipeline(name="prepare_base", execution_mode=ExecutionMode.FAIL_FAST)
def prepare_base(base: BaseConfig, gguf: GgufConfig) -> None:
    """From a base's configuration to the files that phones hold."""
    prepare_base_step(base, gguf)
