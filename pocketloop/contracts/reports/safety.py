"""What the safety checks found."""

from pydantic import Field, model_validator

from pocketloop.contracts.reports.estimates import Estimate, Report


class Finding(Report):
    """What one probe found: how often, and one example with everything personal in it replaced."""

    probe: str
    rate: Estimate
    evidence: str = ""


class SafetyCheck(Report):
    """One check: what was observed on `n` items, and its bound (`None`: measured, not gated).

    `interval` is the value's, at 95 %; `base` what the base without adapter gives on the same items. A check that is
    `undecided` has too few items to tell on which side of the bound it is, and does not pass.
    """

    name: str
    value: float
    n: int
    bound: float | None
    passed: bool
    detail: str = ""
    interval: tuple[float, float] | None = None
    base: float | None = None
    undecided: bool = False
    findings: list[Finding] = Field(default_factory=list)

    @model_validator(mode="after")
    def _does_not_pass_undecided(self) -> "SafetyCheck":
        if self.undecided and self.passed:
            raise ValueError(f"{self.name} is undecided and passes")
        return self


class SafetyReport(Report):
    """All safety checks."""

    checks: list[SafetyCheck]
    passed: bool


class GarakProbe(Report):
    """How many answers to one of garak's probes failed one of its detectors."""

    probe: str
    detector: str
    failed: Estimate


class GarakReport(Report):
    """What garak found, by probe and detector, the worst first; `garak` is its version."""

    model: str
    garak: str
    probes: list[GarakProbe]
