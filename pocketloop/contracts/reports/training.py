"""The prepared base, and how training went."""

from pydantic import Field

from pocketloop.contracts.reports.estimates import Estimate, Report
from pocketloop.contracts.training import StageName


class BaseManifest(Report):
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
    calibration_tokens: int = 0
    """Tokens of calibration text that weighed the matrices' columns; 0 is a plain quantization."""
    probes: int


Curve = list[tuple[int, float]]
"""Points (optimizer step, value)."""


class StageTraining(Report):
    """How one training stage went.

    `curves` by name: `loss`, `validation_loss` (nats per answer token, where the stage has one), and what a stage adds
    (`reward`, `kl`, `accuracy`, `margin` ...). `left_out` counts, by reason, what could not be trained on. `examples`
    were learnt from; `tokens` went through the trained model, padding aside. `best_step` is the step whose state was
    kept; `stopped` says why a stage ended before its time. `peak_memory_mb` (10^6 bytes) is of the accelerator, or of
    the process where there is none.
    """

    stage: StageName
    steps: int
    examples: int
    tokens: int
    seconds: float
    curves: dict[str, Curve]
    left_out: dict[str, int] = Field(default_factory=dict)
    best_step: int
    stopped: str = ""
    peak_memory_mb: float
    metrics: dict[str, Estimate] = Field(default_factory=dict)
    """What the stage measured at its end on held-out data."""

    def last(self, curve: str) -> float | None:
        """The last value of a curve, if it has any."""
        points = self.curves.get(curve)
        return points[-1][1] if points else None


class TrainReport(Report):
    """How training went, stage by stage. `ranks` holds each module's rank where AdaLoRA chose them."""

    parameters: int
    trainable: int
    stages: list[StageTraining]
    start: str = "base"
    """`base`, or the version of the champion that training went on from."""
    replayed: int = 0
    """Old examples that were mixed in."""
    canaries: int = 0
    """Made-up secrets that were planted among the examples."""
    ranks: dict[str, int] = Field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Tokens of all stages."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def tokens_per_second(self) -> float:
        """Over all stages."""
        return self.tokens / max(sum(stage.seconds for stage in self.stages), 1e-9)
