"""What a structured task may answer."""

from typing import Any

from pydantic import Field, model_validator

from pocketloop.contracts.parts import Part


class Catalogue(Part):
    """What a structured task may answer: intent labels, or functions with JSON-schema parameters.

    A parameter's schema may carry `x-pii: TYPE` (its value is personal data of that type) and `x-grounded: false`
    (its value need not stand in the user's words, as with an enumerated or computed one). A function may carry
    `x-destructive: true`: what it does cannot be taken back, or opens a door, and talking about it must not call it.
    """

    labels: list[str] = Field(default_factory=list)
    functions: list[dict[str, Any]] = Field(default_factory=list)
    refusal: str | None = None
    """The label or function that declines a request."""

    @model_validator(mode="after")
    def _lists_something_once(self) -> "Catalogue":
        names = self.labels or [str(function.get("name")) for function in self.functions]
        if not names or bool(self.labels) == bool(self.functions):
            raise ValueError("a catalogue lists either labels or functions")
        if len(set(names)) != len(names):
            raise ValueError("a name stands twice in the catalogue")
        if self.refusal is not None and self.refusal not in names:
            raise ValueError(f"refusal {self.refusal!r} is not in the catalogue")
        return self

    def function(self, name: str) -> dict[str, Any] | None:
        """The declaration called `name`: {name, description, parameters (JSON schema)}."""
        return next((function for function in self.functions if function["name"] == name), None)
