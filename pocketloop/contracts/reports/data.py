"""What the stages from the log to a dataset release report."""

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from pocketloop.contracts.reports.estimates import Estimate, Report


class StageCount(Report):
    """Every record that entered a stage went on, or was left out for a reason that is counted here."""

    stage: str
    entered: int
    kept: int
    left_out: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _loses_nothing(self) -> "StageCount":
        if self.entered != self.kept + sum(self.left_out.values()):
            raise ValueError(f"{self.stage}: {self.entered} entered, {self.kept} kept, the rest is unaccounted for")
        return self


class CollectReport(Report):
    """What was taken from the log and the example sources, and why the rest was not.

    `count` is over everything that the log and the sources hold, other skills' events included.
    """

    count: StageCount
    events: int
    examples: int
    by_source: dict[str, int]
    policies: list[str] = Field(default_factory=list)
    watermark: int = 0
    """Sequence number of the newest event of the log that was seen."""


class ScrubReport(Report):
    """What was replaced, by type; `caught` counts values that the audit met again, in records that were then left out.

    `count` is over events and imported examples.
    """

    count: StageCount
    found: dict[str, int]
    reused_shards: int
    scrubbed_shards: int
    caught: int
    scrubber: str
    """Digest of the scrubber's configuration and code version."""
    audit: "LeakAudit | None" = None


class TypeRecall(Report):
    """How the scrubber did on one type of labelled held-out text: of `labelled` spans, `whole` were covered."""

    type: str
    labelled: int
    whole: int
    spurious: int
    recall: Estimate
    precision: Estimate


class LeakAudit(Report):
    """What a scrubber finds on labelled text that it was not made on; no text in it."""

    scrubber: str
    rows: int
    types: list[TypeRecall]


class ValidationReport(Report):
    """Great Expectations' verdict by expectation."""

    count: StageCount
    success: bool
    expectations: dict[str, bool]


class DriftReport(Report):
    """Evidently's verdict by column, against the previous release (`reference` is its digest)."""

    reference: str | None
    rows: int
    share: float
    verdict: Literal["none", "warn", "fail"] = "none"
    columns: dict[str, float] = Field(default_factory=dict)


class Agreed(Report):
    """Cohen's kappa between the judge and people over `n` answers, with its 95 % interval; `None`: cannot be told.

    `rubric` is the question that both answered, `source` where people's answers come from.
    """

    rubric: str
    source: Literal["thumbs", "file", "mlflow"]
    n: int
    kappa: float | None
    interval: tuple[float, float] | None


class JudgeUse(Report):
    """What a language model as judge was asked. `unfinished` answers wait for the next run, with the reason."""

    model: str
    rubric: str
    """Name and digest of the rubric."""
    asked: int
    cached: int
    inconsistent: int
    """Answers whose verdict changed with the order in which they were shown."""
    failed: int
    tokens: int
    unfinished: int
    why: str = ""


class LabelReport(Report):
    """What the judge kept, and how it agrees with people where they spoke."""

    count: StageCount
    judge: str
    corrected: int
    agreement: list[Agreed] = Field(default_factory=list)
    use: JudgeUse | None = None
    pairs: dict[str, int] = Field(default_factory=dict)
    """Preference pairs by reason."""
    rated: dict[str, int] = Field(default_factory=dict)
    """Unpaired feedback by `up` and `down`."""
    disagreements: int = 0


class Guarded(Report):
    """One guard against poisoning that spoke: what it saw, against its bound, and how many examples it left out."""

    guard: Literal["dominance", "flip"]
    label: str
    value: float
    bound: float
    examples: int
    devices: int


class SelectReport(Report):
    """What was left out between labelling and splitting, and why."""

    count: StageCount
    contaminated: dict[str, int] = Field(default_factory=dict)
    """Examples left out by the evaluation set that they stand in."""
    guarded: list[Guarded] = Field(default_factory=list)
    by_label: dict[str, int] = Field(default_factory=dict)
    """Examples kept by label, function, or role."""
    feedback_left_out: dict[str, int] = Field(default_factory=dict)
    """Preference pairs and rated answers left out by reason; they are no records of their own."""


class DatasetRelease(Report):
    """An immutable, content-addressed dataset: splits, and everything that led to it."""

    digest: str
    """Digest of the adapter's name and the splits: the same examples give the same release."""
    inputs: str
    """Digest of what was collected; a run on the same inputs compares with `parent`, not with itself."""
    adapter: str
    task: str
    splits: dict[str, int]
    groups: dict[str, int]
    pairs: dict[str, int] = Field(default_factory=dict)
    """Preference pairs by split."""
    rated: dict[str, int] = Field(default_factory=dict)
    """Unpaired rated answers by split."""
    event_ids: int
    watermark: int
    policies: list[str]
    parent: str | None
    stages: list[StageCount]
    """From the log to the splits: what one stage keeps is what the next one is given."""
    collect: CollectReport
    scrub: ScrubReport
    validation: ValidationReport
    drift: DriftReport
    label: LabelReport
    select: SelectReport
    files: dict[str, str] = Field(default_factory=dict)
    """Sha256 of every other file of the release, by name; the splits are covered by `digest`."""

    @model_validator(mode="after")
    def _accounts_for_everything(self) -> "DatasetRelease":
        for before, after in pairwise(self.stages):
            if after.entered != before.kept:
                raise ValueError(f"{before.stage} kept {before.kept} records, {after.stage} was given {after.entered}")
        if self.stages and self.stages[-1].kept != sum(self.splits.values()):
            raise ValueError("the splits do not hold what the last stage kept")
        return self
