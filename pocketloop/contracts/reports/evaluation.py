"""What evaluation measured, on whom."""

from pydantic import Field

from pocketloop.contracts.reports.data import JudgeUse
from pocketloop.contracts.reports.estimates import Estimate, Report


class SetResult(Report):
    """One model on one set: each metric, what answering took, and what was not answered.

    `failures` counts, by reason, the items that scored 0 because there was no answer to score. `perplexity` is of the
    right answers of a chat.
    """

    model: str
    set: str
    metrics: dict[str, Estimate]
    seconds: float
    tokens: int
    failures: dict[str, int] = Field(default_factory=dict)
    perplexity: Estimate | None = None


class SliceResult(Report):
    """One model on one slice of a set: the items whose `dimension` (locale, length, intent, tool, user ...) is `value`.

    `estimate` is of these items alone. `family` slices of this model, set and metric were looked at: the worst of many
    looks bad by chance, so `joint` is a wider interval; those of all slices hold together with 95 % (Bonferroni).
    """

    model: str
    set: str
    metric: str
    dimension: str
    value: str
    estimate: Estimate
    joint: tuple[float, float]
    family: int

    @property
    def name(self) -> str:
        """How gates and tables call it: `locale=de-DE`."""
        return f"{self.dimension}={self.value}"


CALIBRATION = "calibration.json"
"""The bundle's file with its `Calibration`."""


class Calibration(Report):
    """The temperature of a router's confidence, `fitted` on `n` validation answers.

    `error_before` and `error_after`: expected calibration error of `heldout` answers (ten bins of equally many) without
    and with the fitted one.
    `temperature`, which phones use, is 1 where it makes that error larger.
    """

    temperature: float
    fitted: float
    n: int
    heldout: int
    error_before: float
    error_after: float


class ReliabilityBin(Report):
    """Answers whose confidence lies from `low` to `high`: what it is on average, and the share that is right."""

    low: float
    high: float
    confidence: float
    right: Estimate


class CurvePoint(Report):
    """What a threshold means: the share of messages that go to the `cloud`, and how the phone answers the rest.

    `accuracy` is of those that stay (`None`: none do), `wrong` the share of all messages that stay and are routed
    wrongly, `lost` the share that goes to the cloud though the phone was right.
    """

    threshold: float
    cloud: float
    accuracy: float | None
    wrong: float
    lost: float


class RouterReport(Report):
    """A router's confidence on `n` held-out messages, and what follows from it.

    `reliability` and `error` (expected calibration error) are over bins of equally many answers; a router whose
    confidence were exactly right would show an error of up to `error_by_chance` in 95 of 100 sets of this size.
    `auroc`: how often a right answer is surer than a wrong one. `curve` has every threshold at which something changes.
    `threshold` keeps as much on the phone as it can while at least `min_accuracy` of it is right, with `sure`
    confidence over all of the `tried` thresholds; `None` where none does. `at_threshold` is what it means here.
    """

    n: int
    reliability: list[ReliabilityBin]
    error: float
    error_by_chance: float
    auroc: float | None
    curve: list[CurvePoint]
    min_accuracy: float
    sure: float
    tried: int
    threshold: float | None
    at_threshold: CurvePoint | None


class PreferenceReport(Report):
    """Whose answers a judge prefers, the candidate's or the champion's, over `n` pairs that were asked in both orders.

    `win_rate`: a pair counts one half where the verdict follows the order, or the answers are equal (`equal` of them).
    `even_length`: the win rate that a logistic regression on the difference in length gives where there is none
    (AlpacaEval 2). `first_shown`: how often the answer that was shown first was preferred, one half without position
    bias; `consistent`: pairs on which the order made no difference. `longer_wins` is of consistent verdicts, `longer`
    is by how many words the candidate's answers are longer on average. `unjudged` pairs have no verdict, and why.
    """

    n: int
    equal: int
    unjudged: int
    why: str
    win_rate: Estimate
    even_length: Estimate
    first_shown: Estimate
    consistent: Estimate
    longer_wins: Estimate
    longer: float
    use: JudgeUse


class EvaluationReport(Report):
    """All models on all sets: `adapter` (llama.cpp, what the phone runs), `base`, `champion`, `transformers`.

    `calibration` and `router` are for intents alone, of the adapter on the first set.
    """

    results: list[SetResult]
    confusion: dict[str, dict[str, int]] = Field(default_factory=dict)
    calibration: Calibration | None = None
    router: RouterReport | None = None
    preference: PreferenceReport | None = None
    slices: list[SliceResult] = Field(default_factory=list)
    sets: dict[str, str] = Field(default_factory=dict)
    """Digest of each set's examples: the same items have the same one, whatever the set is called."""

    def result(self, model: str, set_name: str | None = None) -> SetResult | None:
        """The result of `model` on the set called `set_name`, by default the first set."""
        return next((r for r in self.results if r.model == model and set_name in (None, r.set)), None)

    @property
    def items(self) -> dict[str, int]:
        """How many items each set has, as the candidate was measured on it."""
        sizes = {name: self.result("adapter", name) for name in self.sets}
        return {
            name: max((found.n for found in result.metrics.values()), default=0) if result else 0
            for name, result in sizes.items()
        }

    def worst_slice(self, model: str = "adapter", set_name: str | None = None) -> SliceResult | None:
        """The slice with the lowest value, of the larger one where two are equal; by default of the first set."""
        set_name = set_name or (self.results[0].set if self.results else "")
        found = [s for s in self.slices if s.model == model and s.set == set_name]
        return min(found, key=lambda s: (s.estimate.value, -s.estimate.n), default=None)
