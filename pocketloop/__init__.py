"""pocketloop: what phones log, with consent, becomes the next adapter for their on-device language model."""

import os

# Before any dependency is imported: every telemetry off, in this one place, and threads that wait without spinning.
for _name, _value in {
    "ZENML_ANALYTICS_OPT_IN": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
    "WANDB_DISABLED": "true",
    "TOKENIZERS_PARALLELISM": "false",
    # OpenMP threads that spin while they wait slow everything down on busy cores, themselves included.
    "OMP_WAIT_POLICY": "PASSIVE",
}.items():
    os.environ[_name] = _value

__version__ = "0.1.0"
