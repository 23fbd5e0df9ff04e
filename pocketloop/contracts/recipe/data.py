"""What the adapter learns from: where the examples come from, what stands around them, and which are worth it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pocketloop.contracts.parts import Name, Part, Share


class EventsSource(Part):
    """The event log, filtered by the skill that answered; `role` is the one of `prompt.roles` that these teach."""

    kind: Literal["events"] = "events"
    skill: str
    role: Name | None = None


class ExamplesSource(Part):
    """An example file (`.jsonl`, `.jsonl.gz`) or a generated set such as `demo://functions?n=500`, and its role."""

    kind: Literal["examples"] = "examples"
    uri: str
    role: Name | None = None


class DataConfig(Part):
    """Which data, under which consent policy, how old at most, and how it is split by group."""

    sources: list[Annotated[EventsSource | ExamplesSource, Field(discriminator="kind")]] = Field(min_length=1)
    consent_policies: list[str] | None = None
    max_age_days: float = Field(default=90, gt=0)
    validation: Share = 0.05
    test: Share = 0.10
    seed: int = 7

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "DataConfig":
        if self.validation + self.test >= 0.9:
            raise ValueError("validation + test must leave at least a tenth of the groups for training")
        return self


class PromptConfig(Part):
    """What stands around the user's words: a system text, and whether the functions are declared in the prompt.

    `roles` are the system texts of an adapter that answers as several agents (`wellness: "[AGENT:wellness] You are
    ..."`); an example's role picks one, and `system` is for examples without.
    """

    system: str = ""
    roles: dict[Name, str] = Field(default_factory=dict)
    declare_tools: bool = False


class DriftConfig(Part):
    """Shares of drifted columns from which a release is remarked on, and from which it is refused (`null`: never)."""

    warn: Share = 0.5
    fail: Share | None = None

    @model_validator(mode="after")
    def _warns_first(self) -> "DriftConfig":
        if self.fail is not None and self.fail < self.warn:
            raise ValueError("drift.fail lies below drift.warn")
        return self


class SelectConfig(Part):
    """Which labelled examples are worth learning from. `null` switches a guard off.

    `near_duplicates`: Jaccard similarity of 5-gram shingles from which two prompts count as one. `decontaminate`: an
    example that shares this many consecutive words with an evaluation set is left out. `per_device`, `per_template`:
    most examples of one device, and of one phrasing with its values taken out. `dominance`: largest share of a label's
    examples that one device may give; `flip`: largest change (total variation, 0 to 1) of the answers to one phrasing
    from the previous release. `balance`: the largest label may have this many times the examples of the median one.
    """

    near_duplicates: Share | None = 0.9
    decontaminate: int | None = Field(default=8, ge=3)
    per_device: int | None = Field(default=500, ge=1)
    per_template: int | None = Field(default=200, ge=1)
    dominance: Share | None = 0.5
    flip: Share | None = 0.5
    on_poison: Literal["drop", "stop"] = "drop"
    balance: float | None = Field(default=None, ge=1)
