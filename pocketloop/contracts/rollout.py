"""Ladders, plans, and the record of a rollout: what the watcher decided, when, and on which evidence."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from pocketloop.contracts.delivery import MILLION, Digest
from pocketloop.contracts.parts import Name, Part, Share

Segment = Literal["app_version", "locale"]
Metric = Literal["crashes", "reverts", "fallbacks", "thumbs_down", "slow", "silent"]


class Rung(Part):
    """A share of the fleet, and how long it is kept at least. The control is as large, up to what is left."""

    percent: float = Field(gt=0, le=100)
    min_hours: float = Field(default=24, ge=0)
    loosen: float = Field(default=1.0, ge=1)
    """Widens the margins at this rung: few devices are at stake, and few can certify little."""

    @property
    def ppm(self) -> int:
        """Parts per million."""
        return round(self.percent * MILLION / 100)


class Guardrail(Part):
    """A bound on how many more devices the canary may harm than its control.

    A device counts once in a rollout: from the moment at which its share of bad events (crashes, fallbacks ... of
    sessions; thumbs down of ratings; slow answers of answers) first exceeds `limit` over at least `at_least` of them.
    `silent` counts devices that reported before and then stopped. The rollout goes back when the canary is shown to be
    affected more often than its control, and goes on only when the ratio is shown to be below `max_ratio` (or the share
    of affected devices below `negligible`).
    """

    metric: Metric
    limit: Share = 0.0
    at_least: int = Field(default=1, ge=1)
    max_ratio: float = Field(default=1.5, gt=1)
    negligible: Share = 0.005
    """A share of affected canary devices that needs no comparison: it certifies what almost never happens."""


class Ladder(Part):
    """A canary ladder (`configs/rollouts/NAME.yaml`)."""

    rollout: Name
    rungs: list[Rung] = Field(min_length=1)
    guardrails: list[Guardrail] = Field(min_length=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance that a harmless adapter is ever taken back: over all looks, guardrails and segments together."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence of the non-inferiority that widening needs, for each guardrail."""
    srm_alpha: float = Field(default=0.001, gt=0, lt=0.5)
    """Level at which unequal arms stop a rollout from widening."""
    segments: tuple[Segment, ...] = ("app_version", "locale")
    max_segments: int = Field(default=8, ge=0)
    """The largest segments of each kind that are looked at on their own."""
    min_devices: int = Field(default=100, ge=1)
    """Devices that each arm must have heard from before anything widens."""
    max_days: float = Field(default=28, gt=0)
    """A rung that takes longer is reported as stalled."""
    slow_ms: int = Field(default=1600, ge=1)
    """An answer is slow from this latency on; must be a bound of the histogram."""
    silent_hours: float = Field(default=48, gt=0)
    """A device that reported before has gone silent after this long."""
    daily_devices: int | None = Field(default=None, ge=1)
    """Active devices a day, for the plan; without it the plan takes what telemetry or the event log shows."""

    @model_validator(mode="after")
    def _climbs_to_everybody(self) -> "Ladder":
        shares = [rung.percent for rung in self.rungs]
        if shares != sorted(set(shares)) or shares[-1] != 100:
            raise ValueError("rungs must rise and end at 100 percent")
        if any(share > 50 for share in shares[:-1]):
            raise ValueError("a rung between 50 and 100 percent leaves no equal-sized control")
        metrics = [guardrail.metric for guardrail in self.guardrails]
        if len(set(metrics)) != len(metrics):
            raise ValueError("two guardrails watch the same metric")
        return self


class PlannedRung(Part):
    """Expected days until an adapter as good as its control may leave this rung; `None`: not within `max_days`."""

    percent: float
    days: float | None
    limited_by: str
    """`hold`, or the metric that takes longest to certify."""


class RolloutPlan(Part):
    """What a ladder means for a fleet of this size, before it starts."""

    ladder: str
    daily_devices: int
    source: str
    """Where the fleet's size comes from."""
    rungs: list[PlannedRung]
    late_days: float | None = None
    """Nine in ten rollouts of such an adapter reach everybody within this many days; `None` as in `days`."""

    @property
    def days(self) -> float | None:
        """Expected days to everybody; `None` when a rung cannot be certified in time."""
        if any(rung.days is None for rung in self.rungs):
            return None
        return sum(rung.days or 0.0 for rung in self.rungs)


class GuardrailEvidence(Part):
    """What one guardrail shows. Counts are devices; ratios compare canary with control."""

    metric: Metric
    segment: str = ""
    """Empty for the whole fleet, else `locale=de-DE`."""
    canary_devices: int
    control_devices: int
    canary_affected: int
    control_affected: int
    log_e_harm: float
    """Largest log e-value so far against "the canary harms no more devices than its control"."""
    harm_threshold: float
    log_e_noninferior: float
    """Log e-value against "the ratio is `max_ratio` or more"."""
    noninferior_threshold: float
    ratio_low: float
    ratio_high: float
    """Confidence sequence of the ratio: valid at every look. Infinity is written as 1e9."""
    negligible: bool = False
    """Whether the share of affected canary devices is shown to be below the guardrail's `negligible`."""

    @property
    def harmful(self) -> bool:
        """Whether the canary is shown to be worse."""
        return self.log_e_harm >= self.harm_threshold

    @property
    def noninferior(self) -> bool:
        """Whether the canary is shown not to be worse than allowed."""
        return self.negligible or self.log_e_noninferior >= self.noninferior_threshold


Action = Literal["start", "widen", "finish", "hold", "roll_back"]


class Decision(Part):
    """One decision and its evidence. `why` is a stable word (see delivery/decide.py), `reason` says it to people."""

    at: AwareDatetime
    action: Action
    why: str
    reason: str
    rung: int
    """Index of the rung at which it was taken."""
    ppm_before: int
    ppm_after: int
    canary_devices: int = 0
    control_devices: int = 0
    log_e_srm: float = 0.0
    guardrails: list[GuardrailEvidence] = Field(default_factory=list)


class Rollout(BaseModel):
    """A rollout's whole record; its id is also the salt of its buckets."""

    model_config = ConfigDict(extra="forbid")

    rollout_id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,80}$")]
    adapter: Name
    base_digest: Digest
    version: str
    """The candidate's version."""
    released: str
    """The released version."""
    digest: Digest
    """sha256 of the adapter file that is rolled out."""
    previous: Digest | None
    """sha256 of what the channel served before; `None` is the base alone."""
    ladder: Ladder
    plan: RolloutPlan | None = None
    started: AwareDatetime
    rung: int = 0
    rung_started: AwareDatetime
    rungs: list[AwareDatetime] = Field(default_factory=list)
    """When each rung that was reached began."""
    state: Literal["running", "complete", "rolled_back"] = "running"
    decisions: list[Decision] = Field(default_factory=list)


class Promotion(Part):
    """How far an approved version has come on its way to the fleet.

    `nothing`: no approval waits. `waiting`: for reviewers' signatures, or for a rollout that still runs. `published`:
    signed and public, not yet served. `started`: served to the first rung.
    """

    adapter: Name
    state: Literal["nothing", "waiting", "published", "started"]
    detail: str
    version: str = ""
    released: str = ""
    digest: Digest | None = None
    base_digest: Digest | None = None
    rollout_id: str = ""
    refused: list[str] = Field(default_factory=list)
    """Released versions that do not count, each with its reason."""


class ExpiryDays(Part):
    """How long each role's metadata is valid. Short ones are signed again by every `watch`."""

    root: float = Field(default=365, gt=0)
    targets: float = Field(default=365, gt=0)
    stable: float = Field(default=90, gt=0)
    channels: float = Field(default=7, gt=0)
    snapshot: float = Field(default=7, gt=0)
    timestamp: float = Field(default=2, gt=0)


class OfflineRole(Part):
    """How many keys a role of people has, and how many of them must sign."""

    keys: int = Field(ge=1)
    threshold: int = Field(ge=1)

    @model_validator(mode="after")
    def _can_be_met(self) -> "OfflineRole":
        if self.threshold > self.keys:
            raise ValueError("threshold is larger than the number of keys")
        return self


class DeliveryConfig(Part):
    """`configs/delivery.yaml`: where the repository lies, who signs, and whom to tell."""

    repository: str = ""
    """Any fsspec address (a folder, `s3://bucket/prefix`); empty: `cdn/` in the project's state."""
    root: OfflineRole = OfflineRole(keys=2, threshold=1)
    reviewers: OfflineRole = OfflineRole(keys=3, threshold=2)
    expiry_days: ExpiryDays = ExpiryDays()
    keep_versions: int = Field(default=20, ge=2)
    """Approved adapters of a channel that garbage collection leaves, beside what is served."""
    notify: str = ""
    """Address that each decision is posted to as JSON."""
