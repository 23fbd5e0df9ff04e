"""The whole of a recipe, and what one section can get wrong about another."""

from difflib import get_close_matches

from pydantic import Field, field_validator, model_validator

from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.metrics import AGAINST_CHAMPION, ITEM_METRICS, SET_METRICS
from pocketloop.contracts.names import Task
from pocketloop.contracts.parts import Name, Part
from pocketloop.contracts.recipe.data import DataConfig, DriftConfig, PromptConfig, SelectConfig
from pocketloop.contracts.recipe.evaluation import EvaluationConfig, Gate
from pocketloop.contracts.recipe.export import ExportConfig
from pocketloop.contracts.recipe.label import LabelConfig
from pocketloop.contracts.recipe.safety import SafetyConfig
from pocketloop.contracts.recipe.scrub import ScrubConfig
from pocketloop.contracts.training import TrainConfig


class Recipe(Part):
    """One adapter's whole recipe (`configs/adapters/NAME.yaml`)."""

    adapter: Name
    task: Task
    base: str
    catalogue: str | None = None
    description: str = ""
    data: DataConfig
    prompt: PromptConfig = PromptConfig()
    scrub: ScrubConfig = ScrubConfig()
    drift: DriftConfig = DriftConfig()
    label: LabelConfig = LabelConfig()
    select: SelectConfig = SelectConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gates: list[Gate] = Field(default_factory=list)
    safety: SafetyConfig = SafetyConfig()
    export: ExportConfig = ExportConfig()
    rollout: Name = "standard"
    """The canary ladder, `configs/rollouts/NAME.yaml`."""

    @field_validator("gates")
    @classmethod
    def _gates_are_distinct(cls, gates: list[Gate]) -> list[Gate]:
        seen = {(gate.metric, gate.noninferior_to, gate.superior_to, tuple(gate.slices)) for gate in gates}
        if len(seen) != len(gates):
            raise ValueError("two gates ask the same of the same metric")
        return gates

    @model_validator(mode="after")
    def _structured_tasks_have_a_catalogue(self) -> "Recipe":
        if self.task != "chat" and not self.catalogue:
            raise ValueError(f"task {self.task} needs `catalogue`: the file that lists its labels or functions")
        return self

    def mistakes(self) -> list[tuple[tuple[str | int, ...], str]]:
        """What cannot be meant although each part is valid: where it stands, and why.

        These are roles that `prompt.roles` does not define, and gates on what is not measured. Not a validator: a
        `view` without `prompt` is a valid recipe.
        """
        named = [(("data", "sources", at, "role"), source.role) for at, source in enumerate(self.data.sources)]
        named += [(("evaluation", "sets", at, "role"), one.role) for at, one in enumerate(self.evaluation.sets)]
        defined = ", ".join(sorted(self.prompt.roles)) or "none"
        found: list[tuple[tuple[str | int, ...], str]] = [
            (where, f"{role!r} is not under prompt.roles (defined: {defined})")
            for where, role in named
            if role is not None and role not in self.prompt.roles
        ]
        items, whole = ITEM_METRICS[self.task], SET_METRICS[self.task]
        for at, gate in enumerate(self.gates):
            if gate.metric not in (*items, *whole):
                near = get_close_matches(gate.metric, (*items, *whole), 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join((*items, *whole))}"
                found.append((("gates", at, "metric"), f"task {self.task} has no metric {gate.metric!r}; {hint}"))
            elif gate.metric in whole and (gate.against or gate.slices):
                why = f"{gate.metric} is of a whole set and not of each item: it can only have a floor (`min`)"
                found.append((("gates", at, "metric"), why))
            elif gate.metric in AGAINST_CHAMPION and self.evaluation.judge is None:
                found.append((("gates", at, "metric"), f"{gate.metric} needs a judge: name one under evaluation.judge"))
        if self.evaluation.judge and self.task != "chat":
            found.append((("evaluation", "judge"), f"task {self.task} has one right answer: a judge compares chats"))
        return found

    @property
    def digest(self) -> str:
        """Digest of the resolved recipe: two recipes that mean the same have the same one."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))

    def view(self, *sections: str) -> "Recipe":
        """This recipe with every optional section but `sections` at its default.

        A stage is given the view of what it reads, so that its cached result stays valid when something else changes.
        """
        fixed = {"adapter", "task", "base", "catalogue", "data"}
        return Recipe.model_validate(self.model_dump(include=fixed | set(sections)))
