"""What gates decided, on what evidence, and the bundle that is registered with it."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import Field

from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.reports.estimates import Report

Verdict = Literal["pass", "fail", "inconclusive"]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Fail outranks inconclusive outranks pass; no verdict at all is a failure."""
    found = set(verdicts)
    if not found or "fail" in found:
        return "fail"
    return "inconclusive" if "inconclusive" in found else "pass"


class Measured(Report):
    """What a gate's test found on all items, or on those of one slice.

    `observed` is a mean, or a mean difference (candidate minus the other), with one-sided bounds `low` and `high`. Of
    the `n` items (or dialogues) the candidate is better on `wins` and worse on `losses`. A pass is shown where `p` is
    small, a failure where `p_against` is; the latter is corrected for the number of slices where there are several.
    """

    n: int
    observed: float
    low: float
    high: float
    wins: int = 0
    losses: int = 0
    p: float | None = None
    p_against: float | None = None


class SliceVerdict(Report):
    """One slice (`locale=de-DE`) of a gate that asks of each."""

    name: str
    verdict: Verdict
    measured: Measured
    small: bool = False
    """Fewer items than the gate waits for: it can fail the gate, and is not needed to pass it."""


class GateResult(Report):
    """One gate: what was observed and what follows.

    `key` is the gate's place in the recipe (`gates.0`), empty for those that are always added. `against` is the model
    that was compared with, `test` how, and `bound` what the lower bound, or the value, is held against.
    """

    gate: str
    verdict: Verdict
    observed: float | None
    n: int
    detail: str
    key: str = ""
    against: str = ""
    test: str = ""
    bound: float | None = None
    confidence: float | None = None
    measured: Measured | None = None
    slices: list[SliceVerdict] = Field(default_factory=list)
    change: str = ""
    """What would change the verdict."""


class SetUse(Report):
    """How often an evaluation set has decided: `decided` are the earlier versions whose gates were judged on it."""

    set: str
    digest: str
    items: int
    decided: list[str] = Field(default_factory=list)


class SetUses(Report):
    """The uses of all evaluation sets of one candidate."""

    uses: list[SetUse] = Field(default_factory=list)


class GateDecision(Report):
    """The verdict over all gates, safety, parity and budget: fail outranks inconclusive outranks pass.

    `evidence` names every file of the bundle that the verdict follows from, with its sha256: from them it can be
    computed again. `warnings` change no verdict.
    """

    verdict: Verdict
    gates: list[GateResult]
    evidence: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


class ReleaseBundle(Report):
    """What is registered: every file with its digest, and what it was made from."""

    adapter: str
    task: str
    recipe_digest: str
    dataset_digest: str
    base: str
    base_digest: str
    files: dict[str, str]
    sizes: dict[str, int]
    digest: str
    created: datetime


def bundle_digest(
    adapter: str, files: dict[str, str], dataset_digest: str, base_digest: str, decision: GateDecision
) -> str:
    """What a reviewer approves, as one sha256: files (name to sha256), what they were made from, and the verdict."""
    # Without what is empty, so that versions from before a field existed keep their digest.
    gates = decision.model_dump(mode="json", exclude_defaults=True)
    return sha256_text(canonical_json([adapter, files, dataset_digest, base_digest, gates]))
