"""What each stage reports. No field of any report ever holds what a person wrote."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pocketloop.contracts.files import canonical_json, sha256_text


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CollectReport(_Report):
    """What was taken from the log and the example sources, and why the rest was not."""

    events: int
    examples: int
    by_source: dict[str, int]
    left_out: dict[str, int] = Field(default_factory=dict)
    policies: list[str] = Field(default_factory=list)
    watermark: int = 0
    """Sequence number of the newest event of the log that was seen."""


class ScrubReport(_Report):
    """What was replaced, by type; `leaks` counts found values that still stood somewhere after scrubbing."""

    records: int
    quarantined: int
    found: dict[str, int]
    reused_shards: int
    scrubbed_shards: int
    leaks: int
    scrubber: str
    """Digest of the scrubber's configuration and code version."""


class ValidationReport(_Report):
    """Great Expectations' verdict by expectation."""

    rows: int
    success: bool
    expectations: dict[str, bool]
    dropped: dict[str, int] = Field(default_factory=dict)


class DriftReport(_Report):
    """Evidently's verdict by column, against the previous release (`reference` is its digest)."""

    reference: str | None
    rows: int
    share: float
    drifted: bool
    columns: dict[str, float] = Field(default_factory=dict)


class LabelReport(_Report):
    """What the judge kept, and how it agrees with people where they spoke (Cohen's kappa with a 95 % interval)."""

    judge: str
    examples: int
    corrected: int
    rejected: dict[str, int]
    rated: int
    kappa: float | None
    kappa_interval: tuple[float, float] | None


class DatasetRelease(_Report):
    """An immutable, content-addressed dataset: splits, and everything that led to it."""

    digest: str
    """Digest of the adapter's name and the splits: the same examples give the same release."""
    inputs: str
    """Digest of what was collected; a run on the same inputs compares with `parent`, not with itself."""
    adapter: str
    task: str
    splits: dict[str, int]
    groups: dict[str, int]
    event_ids: int
    watermark: int
    policies: list[str]
    parent: str | None
    collect: CollectReport
    scrub: ScrubReport
    validation: ValidationReport
    drift: DriftReport
    label: LabelReport


class BaseManifest(_Report):
    """A prepared base: digests of what was trained on and of what phones run."""

    base: str
    architecture: str
    source: str
    weights_digest: str
    digest: str
    """Digest of the quantized GGUF: adapters are bound to it."""
    quantization: str
    parameters: int
    files: dict[str, str]
    sizes: dict[str, int]
    fallback_tensors: int
    bits_per_weight: float
    probes: int


class TrainReport(_Report):
    """How training went. Losses are per answer token, in nats; `curve` holds (step, loss)."""

    parameters: int
    trainable: int
    steps: int
    examples: int
    tokens: int
    seconds: float
    tokens_per_second: float
    train_loss: float
    validation_loss: float | None
    curve: list[tuple[int, float]]
    validation_curve: list[tuple[int, float]] = Field(default_factory=list)


class ParityResult(_Report):
    """llama.cpp against transformers on the same tokens: agreement of the best token, KL (nats), largest difference."""

    name: str
    tokens: int
    token_ids_equal: bool
    top1: float
    kl: float
    max_logit_difference: float
    passed: bool


class ParityReport(_Report):
    """Every comparison, and whether the adapter has an effect at all."""

    results: list[ParityResult]
    adapter_effect: float
    """Mean KL between base and base + adapter: zero means a file that loads and changes nothing."""
    passed: bool


class Estimate(_Report):
    """A proportion with its Wilson 95 % interval."""

    value: float
    n: int
    low: float
    high: float


class SetResult(_Report):
    """One model on one set: each metric, and each item's outcome for pairing (ids, never text)."""

    model: str
    set: str
    metrics: dict[str, Estimate]
    seconds: float
    tokens: int


class EvaluationReport(_Report):
    """All models on all sets: `adapter` (llama.cpp, what the phone runs), `base`, `champion`, `transformers`."""

    results: list[SetResult]
    confusion: dict[str, dict[str, int]] = Field(default_factory=dict)

    def result(self, model: str, set_name: str | None = None) -> SetResult | None:
        """The result of `model` on the set called `set_name`, by default the first set."""
        return next((r for r in self.results if r.model == model and set_name in (None, r.set)), None)


class SafetyCheck(_Report):
    """One check: what was observed on `n` items, and its bound (`None`: measured, not gated)."""

    name: str
    value: float
    n: int
    bound: float | None
    passed: bool
    detail: str = ""


class SafetyReport(_Report):
    """All safety checks."""

    checks: list[SafetyCheck]
    passed: bool


Verdict = Literal["pass", "fail", "inconclusive"]


class GateResult(_Report):
    """One gate: what was observed and what follows."""

    gate: str
    verdict: Verdict
    observed: float | None
    n: int
    detail: str


class GateDecision(_Report):
    """The verdict over all gates, safety, parity and budget: fail outranks inconclusive outranks pass."""

    verdict: Verdict
    gates: list[GateResult]


class ReleaseBundle(_Report):
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
    gates = decision.model_dump(mode="json")
    return sha256_text(canonical_json([adapter, files, dataset_digest, base_digest, gates]))
