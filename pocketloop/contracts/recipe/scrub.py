"""Which personal data is looked for, and by what."""

from typing import Literal

from pydantic import Field, model_validator

from pocketloop.contracts.parts import Part, Share


class NerConfig(Part):
    """The trained recognizer of names and places beside the patterns.

    `embedded` is the small spaCy model that is shipped; `spacy`, `transformers` and `gliner` load `model`, a local
    folder or a hub id. `labels` maps the model's own labels to the scrubber's types.
    """

    engine: Literal["embedded", "spacy", "transformers", "gliner", "none"] = "embedded"
    model: str | None = None
    language: str = "en"
    labels: dict[str, str] = Field(default_factory=lambda: {"PERSON": "PERSON", "PER": "PERSON", "person": "PERSON"})

    @model_validator(mode="after")
    def _names_its_model(self) -> "NerConfig":
        if (self.model is None) != (self.engine in ("embedded", "none")):
            raise ValueError(f"engine {self.engine} {'needs' if self.model is None else 'takes no'} `model`")
        return self


class ScrubConfig(Part):
    """Which kinds of personal data are looked for; `None` means all that the scrubber knows."""

    types: list[str] | None = None
    min_score: Share = 0.4
    ner: NerConfig = NerConfig()
