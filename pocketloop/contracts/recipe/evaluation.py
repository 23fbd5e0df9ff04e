"""What is measured on held-out sets, and the gates on it."""

from typing import Literal

from pydantic import Field, model_validator

from pocketloop.contracts.parts import Name, Part, Share
from pocketloop.contracts.recipe.label import JudgeEndpoint


class EvaluationSet(Part):
    """A named held-out set; `uri` and `role` as in a source. Without any, the release's test split is used.

    With `turns: every` each turn of a conversation is asked, after the right ones before it, and the dialogue is scored
    as a whole, too. `limit` counts examples, so turns.
    """

    name: Name
    uri: str
    role: Name | None = None
    limit: int | None = Field(default=None, ge=1)
    turns: Literal["last", "every"] = "last"


class RouterTarget(Part):
    """What a router's threshold must keep: this share of what stays on the phone is right, with this confidence."""

    min_accuracy: Share = 0.95
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class EvaluationConfig(Part):
    """What is measured and how long an answer may be (tokens); `router` is for intents.

    `judge` compares a chat's answers with the champion's on the first `judged` examples of the first set.
    """

    sets: list[EvaluationSet] = Field(default_factory=list)
    max_new_tokens: int = Field(default=96, ge=1)
    router: RouterTarget = RouterTarget()
    judge: JudgeEndpoint | None = None
    judged: int = Field(default=200, ge=1)


class Gate(Part):
    """A condition on one metric of the first evaluation set: exactly one of a floor and two comparisons.

    `min`: an absolute floor. `noninferior_to`: worse than that model by less than `margin` (0.03). `superior_to`:
    better than it by more than `margin` (0). Comparisons are paired, item by item. With `slices` (dimensions such as
    `locale`, or `all`) the condition is on each slice, with Holm's correction over them; one of fewer than `min_items`
    items can fail the gate, and is not waited for to pass it.
    """

    metric: str
    min: float | None = None
    noninferior_to: Literal["champion", "base"] | None = None
    superior_to: Literal["champion", "base"] | None = None
    margin: float | None = Field(default=None, ge=0, lt=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    slices: list[Name] = Field(default_factory=list)
    min_items: int = Field(default=30, ge=1)

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Gate":
        if sum(wanted is not None for wanted in (self.min, self.noninferior_to, self.superior_to)) != 1:
            raise ValueError("a gate has exactly one of `min`, `noninferior_to` and `superior_to`")
        if self.min is not None and self.margin is not None:
            raise ValueError("`margin` is from another model: say `noninferior_to: champion` instead of `min`")
        if self.noninferior_to and self.margin == 0:
            raise ValueError("`margin` must be above 0: that nothing at all was lost cannot be shown")
        return self

    @property
    def against(self) -> str:
        """The model that the candidate is compared with; empty for a floor."""
        return self.noninferior_to or self.superior_to or ""

    @property
    def allowance(self) -> float:
        """The margin, or what it is where none is given."""
        if self.margin is not None:
            return self.margin
        return 0.03 if self.noninferior_to else 0.0
