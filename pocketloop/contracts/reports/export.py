"""How exported files compare with what was trained."""

from pydantic import Field

from pocketloop.contracts.reports.estimates import Report


class ParityResult(Report):
    """A runtime against transformers on the same tokens: agreement of the best token, KL (nats), largest difference.

    `perplexity` of the same texts by the runtime, `expected_perplexity` by transformers.
    """

    name: str
    tokens: int
    token_ids_equal: bool
    top1: float
    kl: float
    max_logit_difference: float
    perplexity: float | None = None
    expected_perplexity: float | None = None
    passed: bool


class ParityReport(Report):
    """Every comparison, and whether the adapter has an effect at all."""

    results: list[ParityResult]
    adapter_effect: float
    """Mean KL between base and base + adapter: zero means a file that loads and changes nothing."""
    failed: list[str] = Field(default_factory=list)
    """What else is wrong with the files, as sentences."""
    passed: bool


class QuantizationRow(Report):
    """One quantization of a base, with the adapter if there is one: what it costs, and how far it is from float32.

    `calibrated` by an importance matrix; `size` in bytes; `tokens_per_second` and `resident_bytes` are of this machine.
    """

    quantization: str
    calibrated: bool
    size: int
    bits_per_weight: float
    fallback_tensors: int
    top1: float
    kl: float
    perplexity: float
    tokens_per_second: float
    resident_bytes: int
    passed: bool
    """Whether it keeps the recipe's bounds for quantized files."""


class QuantizationMatrix(Report):
    """The quantizations of one base side by side, from the largest file to the smallest, on the same `tokens`.

    `expected_perplexity` is that of transformers in float32 on the same texts.
    """

    base: str
    tokens: int
    threads: int
    expected_perplexity: float
    rows: list[QuantizationRow]
