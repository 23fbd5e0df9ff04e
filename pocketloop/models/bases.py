"""Base models and adapters as transformers and peft load them, from safetensors only."""

from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.models.chat import load_tokenizer


def base_folder(config: BaseConfig) -> Path:
    """The local folder of a base's weights: as configured, or from the hub's cache (fetched when allowed).

    Raises:
        ModelError: the folder is absent and the hub cannot be reached.
    """
    local = Path(config.source)
    if local.is_dir():
        return local
    if local.is_absolute() or config.source.startswith("."):
        raise ModelError(f"base {config.base}: folder {config.source} does not exist")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                config.source,
                revision=config.revision,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"],
            )
        )
    except Exception as error:
        raise ModelError(
            f"base {config.base}: {config.source} is neither a local folder nor to be had from the hub "
            f"({type(error).__name__}); download it once, or set `source` in configs/bases/{config.base}.yaml "
            "to a folder"
        ) from None


def load_base(config: BaseConfig, dtype: str | None = None) -> tuple[Any, Any]:
    """Load (model, tokenizer); `dtype` overrides the configured one. Weights come from safetensors only."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for each load says nothing among a pipeline's lines
    folder = base_folder(config)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype or config.dtype), use_safetensors=True, attn_implementation="sdpa"
    )
    found = model.config.get_text_config().model_type.removesuffix("_text")
    if found != config.architecture:
        raise ModelError(f"base {config.base}: {folder} holds {found}, the configuration says {config.architecture}")
    return model, load_tokenizer(folder, config.chat_template)


def load_with_adapter(config: BaseConfig, adapter: Path, dtype: str | None = None) -> tuple[Any, Any]:
    """Load (peft model, tokenizer) with the safetensors adapter in folder `adapter`."""
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter} holds no adapter_model.safetensors")
    model, tokenizer = load_base(config, dtype)
    return PeftModel.from_pretrained(model, str(adapter)), tokenizer
