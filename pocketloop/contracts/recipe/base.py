"""A base model: where its weights come from."""

from typing import Literal

from pydantic import Field, field_validator

from pocketloop.contracts.home import project_root
from pocketloop.contracts.parts import Part


class BaseConfig(Part):
    """A base model (`configs/bases/NAME.yaml`): where its weights come from and what phones run.

    `source` is a hub id or a local folder (relative ones are seen from the file). A `digest`, when given, must match
    the weights. `chat_template`, a file, replaces the tokenizer's own. `calibration`, a UTF-8 text file of a few
    thousand words as the model will see them, weighs the columns of each matrix when it is quantized.
    """

    base: str
    source: str
    revision: str | None = None
    architecture: Literal["gemma3", "llama", "qwen2", "qwen3"]
    chat_template: str | None = None
    calibration: str | None = None
    context: int = Field(default=2048, ge=64)
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    digest: str | None = None
    license: str = ""
    notes: str = ""

    @field_validator("source", "chat_template", "calibration")
    @classmethod
    def _in_this_checkout(cls, value: str | None) -> str | None:
        """A path in the checkout is absolute here; who wrote it may have had the checkout elsewhere (a container)."""
        return str(project_root() / value) if value and (project_root() / value).exists() else value

    def relocatable(self) -> "BaseConfig":
        """The same, with what lies in the checkout named from its top."""
        names = ("source", "chat_template", "calibration")
        here = f"{project_root()}/"
        return self.model_copy(update={name: (getattr(self, name) or "").removeprefix(here) or None for name in names})
