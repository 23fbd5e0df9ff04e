"""What a simulated fleet is made of, what a new adapter does to it, and how the rollout should end."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_config
from pocketloop.contracts.parts import Name, Part, Share
from pocketloop.contracts.rollout import Metric

START = datetime.fromisoformat("2026-01-05T00:00:00+00:00")
"""Simulated clocks start here: always the same, so that a seed gives the same run; and past, as collectors demand."""


class Population(Part):
    """How the devices of a fleet differ, before any rollout. Rates are means over devices."""

    app_versions: dict[str, float] = Field(
        default_factory=lambda: {"4.3.0": 0.44, "4.2.1": 0.30, "4.2.0": 0.14, "4.1.0": 0.12}
    )
    """Shares of the fleet, in any unit."""
    locales: dict[str, float] = Field(
        default_factory=lambda: {
            "en-US": 0.38,
            "de-DE": 0.16,
            "fr-FR": 0.14,
            "es-ES": 0.12,
            "pt-BR": 0.12,
            "ja-JP": 0.08,
        }
    )
    sessions_a_day: float = Field(default=3, gt=0)
    """Median; lognormal over devices."""
    sessions_spread: float = Field(default=1, ge=0)
    """Standard deviation of the logarithm: 1 lets a tenth of the devices have 40 % of all sessions."""
    crashes_a_session: Share = 0.004
    crash_shape: float = Field(default=0.4, gt=0)
    """Gamma shape over devices: the smaller, the fewer devices cause most crashes."""
    fallbacks: Share = 0.15
    """Share of sessions; beta over devices, as are the two below."""
    rated: Share = 0.3
    """Share of sessions that get a thumb."""
    thumbs_down: Share = 0.2
    """Share of thumbs that point down."""
    concentration: float = Field(default=3, gt=0)
    """a + b of the beta distributions: the smaller, the more devices differ."""
    latency_ms: float = Field(default=400, gt=0)
    """Median of the devices' median latencies; lognormal over devices, and again over one device's answers."""
    latency_spread: float = Field(default=0.9, ge=0)
    latency_jitter: float = Field(default=0.5, gt=0)
    answers_a_session: int = Field(default=3, ge=1)
    leaves_a_day: Share = 0.03
    """Chance that a device is switched off or offline for a while."""
    away_hours: float = Field(default=60, gt=0)
    """Mean; exponential, at most four times as long."""
    report_hours: float = Field(default=12, gt=0)
    """A device posts its counts this often."""
    sync_hours: float = Field(default=12, gt=0)
    """A device asks for its channel's policy this often."""


class Effect(Part):
    """What the new file changes on the devices that run it. Shares change by their odds, rates by a factor."""

    app_version: str | None = None
    """Only devices with this version of the app."""
    locale: str | None = None
    from_hours: float = Field(default=0, ge=0)
    """Hours since the device took the file."""
    until_hours: float = Field(default=float("inf"), gt=0)
    crashes: float = Field(default=1, ge=0)
    fallbacks: float = Field(default=1, ge=0)
    thumbs_down: float = Field(default=1, ge=0)
    latency: float = Field(default=1, gt=0)
    crash_ends_telemetry: bool = False
    """A device that crashed reports nothing more until it runs another file."""


class Expected(Part):
    """How the rollout should end."""

    state: Literal["complete", "rolled_back", "holding"]
    """`holding`: nothing was widened and nothing taken back."""
    metrics: tuple[Metric, ...] = ()
    """One of these is what the rollback's evidence shows."""
    segment: str = ""
    """Where it looks worst, as `locale=de-DE`; empty: anywhere."""

    @model_validator(mode="after")
    def _only_a_rollback_has_a_cause(self) -> "Expected":
        if (self.state == "rolled_back") != bool(self.metrics):
            raise ValueError("`metrics` name what a rollback shows: needed for it, and for nothing else")
        return self

    def __str__(self) -> str:
        if self.state != "rolled_back":
            return self.state
        return f"rolled_back by {' or '.join(self.metrics)}" + (f" in {self.segment}" if self.segment else "")


class Scenario(Part):
    """`configs/scenarios/NAME.yaml`."""

    scenario: Name
    about: str
    ladder: str = "standard"
    devices: int = Field(default=20_000, ge=2)
    days: float = Field(default=28, gt=0)
    """Simulated days after which an unfinished rollout counts as holding."""
    warmup_hours: float = Field(default=48, gt=0)
    """What the fleet reports before the rollout starts."""
    population: Population = Population()
    effects: list[Effect] = Field(default_factory=list)
    expect: Expected

    @model_validator(mode="after")
    def _segments_exist(self) -> "Scenario":
        for effect in self.effects:
            for value, known in (
                (effect.app_version, self.population.app_versions),
                (effect.locale, self.population.locales),
            ):
                if value is not None and value not in known:
                    raise ValueError(f"no device of the population has {value}; there are {', '.join(known)}")
        return self


def load_scenario(name: str) -> Scenario:
    """Load `configs/scenarios/NAME.yaml`, or the file at a path.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    given = Path(name)
    if given.suffix in (".yaml", ".yml"):
        if not given.is_file():
            raise ConfigError(f"scenario {name} does not exist")
        return load_config(given, Scenario)
    path = project_root() / "configs" / "scenarios" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no scenario {name}; there are {', '.join(scenario_names())}")
    return load_config(path, Scenario)


def scenario_names() -> list[str]:
    """The scenarios in `configs/scenarios/`, sorted."""
    return sorted(path.stem for path in (project_root() / "configs" / "scenarios").glob("*.yaml"))
