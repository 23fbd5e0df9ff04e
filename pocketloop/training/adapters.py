"""The adapter itself: made over a base, loaded to be trained on, saved without a trace of where it was made."""

import json
from pathlib import Path
from typing import Any

from pocketloop.contracts.files import atomic_dir
from pocketloop.contracts.training import LoraConfig


def new_adapter(model: Any, lora: LoraConfig) -> Any:
    """A peft model over `model` whose fresh adapter changes nothing yet."""
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    return get_peft_model(
        model,
        PeftLora(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            task_type="CAUSAL_LM",
        ),
    )


def open_adapter(model: Any, folder: Path) -> Any:
    """A peft model over `model` with the adapter in `folder`, to be trained on."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def save_adapter(model: Any, out: Path, base: str) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`; equal adapters give equal bytes."""
    with atomic_dir(out) as folder:
        model.save_pretrained(folder, safe_serialization=True, selected_adapters=["default"])
        written = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        written["base_model_name_or_path"] = base
        # peft keeps the names in a set: its order changes from run to run, and with it the folder's digest.
        if isinstance(written["target_modules"], list):
            written["target_modules"].sort()
        for file in folder.iterdir():
            if file.name != "adapter_model.safetensors":
                file.unlink()
        text = json.dumps(written, indent=2, sort_keys=True) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
