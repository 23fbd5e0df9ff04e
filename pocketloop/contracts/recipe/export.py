"""Which files are made for phones, and what they must prove."""

from typing import Literal

from pydantic import Field

from pocketloop.contracts.lowering import PteForm
from pocketloop.contracts.names import GgufQuantization
from pocketloop.contracts.parts import Name, Part, Share


class GgufConfig(Part):
    """Quantization of the shared base file and of the adapter file; `compare` are measured beside it for the report.

    An adapter in `Q8_0` is half the size of one in `F16`; parity decides whether it may be.
    """

    base: GgufQuantization = "Q4_K_M"
    adapter: Literal["F32", "F16", "Q8_0"] = "F16"
    compare: list[GgufQuantization] = Field(default_factory=list)


class ParityConfig(Part):
    """How close a phone's runtime must stay to transformers on held-out text.

    llama.cpp is compared twice: the unquantized files (conversion must be exact) and the quantized base (a loss is
    allowed). The `_pte` bounds are ExecuTorch's, which also quantizes activations. `max_perplexity` multiplies
    transformers' perplexity of the text; `max_score_loss` is what the task's main metric may lose on the exported
    files, as the upper end of a paired 95 % interval.
    """

    min_top1_f16: Share = 0.99
    max_kl_f16: float = Field(default=1e-3, gt=0)
    max_perplexity_f16: float = Field(default=1.01, ge=1)
    min_top1: Share = 0.90
    max_kl: float = Field(default=0.05, gt=0)
    max_perplexity: float = Field(default=1.1, ge=1)
    min_top1_pte: Share = 0.85
    max_kl_pte: float = Field(default=0.1, gt=0)
    max_perplexity_pte: float = Field(default=1.2, ge=1)
    max_score_loss: float = Field(default=0.05, gt=0, lt=1)


class PteConfig(Part):
    """A program for ExecuTorch: how it is lowered (`configs/lowerings/NAME.yaml`), and with which adapter.

    `merged` is a whole model for each adapter; `shared` a small program beside one file of the base's weights.
    """

    lowering: Name = "xnnpack-8da4w"
    form: PteForm = "shared"


class BudgetConfig(Part):
    """What phones allow; MB are 10^6 bytes, and `null` measures without gating.

    `memory_mb` is the peak of resident memory with the context full, `first_token_ms` the time from the longest golden
    probe to its first token, both on the machine that exports. On each of `devices` (`configs/device_classes.yaml`) the
    assistant must fit, and decode `tokens_per_second` by projection (`null`: the file's own `slow_below`).
    """

    adapter_mb: float = Field(default=20, gt=0)
    base_mb: float | None = Field(default=None, gt=0)
    memory_mb: float | None = Field(default=None, gt=0)
    first_token_ms: float | None = Field(default=None, gt=0)
    devices: list[Name] = Field(default_factory=list)
    tokens_per_second: float | None = Field(default=None, gt=0)


class ExportConfig(Part):
    """Which files are made for phones, and what they must prove.

    `context` is the longest prompt and answer together (tokens) that phones make room for; `null` is the base's own.
    """

    context: int | None = Field(default=None, ge=64)
    gguf: GgufConfig = GgufConfig()
    pte: PteConfig | None = None
    parity: ParityConfig = ParityConfig()
    budget: BudgetConfig = BudgetConfig()
