"""pocketloop: what phones log, with consent, becomes the next adapter for their on-device language model."""

import os

# The one place where every dependency's telemetry is switched off, before any of them is imported.
for _name, _value in {
    "ZENML_ANALYTICS_OPT_IN": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
    "WANDB_DISABLED": "true",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ[_name] = _value

__version__ = "0.1.0"
