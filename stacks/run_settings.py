"""How steps run: a run-settings file, and what it comes to for each step of a pipeline as ZenML reads it."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_config
from pocketloop.contracts.recipe import Recipe
from stacks.config import StackConfig
from stacks.images import image_reference
from stacks.kinds import KIND_OF, Kind

_AS_BUILT = {
    "skip_build": True,
    "allow_download_from_artifact_store": False,
    "allow_download_from_code_repository": False,
    "allow_including_files_in_images": False,
}
"""The image holds the code: a run builds nothing and uploads nothing."""


class Retry(BaseModel):
    """How often a failed step is started again; the wait grows by `backoff` each time."""

    model_config = ConfigDict(extra="forbid")

    retries: int = Field(ge=1)
    delay_s: int = Field(default=0, ge=0)
    backoff: int = Field(default=1, ge=1)


class StepRun(BaseModel):
    """What one step, or every step of a kind, is given; None is left to what is more general."""

    model_config = ConfigDict(extra="forbid")

    image: str | None = None
    """A whole image reference instead of the one that `pocketloop stack images` names."""
    cpu: float | None = Field(default=None, gt=0)
    memory: Annotated[str, Field(pattern=r"^[0-9]+(KB|KiB|MB|MiB|GB|GiB|TB|TiB)$")] | None = None
    gpu: int | None = Field(default=None, ge=0)
    node_selector: dict[str, str] | None = None
    retry: Retry | None = None
    caching: bool | None = None
    """False runs the step even where its inputs have not changed."""
    environment: dict[str, str] = {}


class RunSettings(BaseModel):
    """A file of configs/runs."""

    model_config = ConfigDict(extra="forbid")

    kinds: dict[Kind, StepRun] = {}
    steps: dict[str, StepRun] = {}
    retry: Retry | None = None
    environment: dict[str, str] = {}

    @model_validator(mode="after")
    def _known_steps(self) -> "RunSettings":
        for name in self.steps:
            if name not in KIND_OF:
                near = get_close_matches(name, KIND_OF, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(KIND_OF))}"
                raise ValueError(f"steps: no step {name!r}; {hint}")
        return self

    def of(self, step: str) -> StepRun:
        """What a step is given: its own settings over those of its kind over those of all steps."""
        general = StepRun(retry=self.retry, environment=self.environment)
        layers = [general, self.kinds.get(KIND_OF[step], StepRun()), self.steps.get(step, StepRun())]
        merged: dict[str, Any] = {}
        for layer in layers:
            given = layer.model_dump(exclude_none=True, exclude_defaults=True)
            environment = {**merged.get("environment", {}), **given.get("environment", {})}
            merged = {**merged, **given, "environment": environment}
        return StepRun.model_validate(merged)


def runs_file(config: StackConfig) -> Path | None:
    """The run-settings file that a stack names: `configs/runs/NAME.yaml`, or a path; None when it names none."""
    named = config.runs
    if named is None:
        return None
    return Path(named) if named.endswith((".yaml", ".yml")) else project_root() / "configs" / "runs" / f"{named}.yaml"


def load_runs(config: StackConfig) -> RunSettings | None:
    """The run settings that a stack names; None when it names none.

    Raises:
        ConfigError: naming file, line and key; an unknown step with the nearest known one.
    """
    path = runs_file(config)
    return load_config(path, RunSettings) if path else None


def with_runs(pipeline: Any, config: StackConfig, parameters: dict[str, Any]) -> Any:
    """The pipeline with the run settings that its stack names; the same pipeline when it names none.

    Raises:
        ConfigError: the recipe trains with more processes on a machine than the settings give it GPUs.
    """
    from zenml.enums import ExecutionMode

    runs = load_runs(config)
    if runs is None:
        return pipeline
    _check_gpus(runs, parameters.get("recipe"))
    probe = pipeline.copy()
    probe.prepare(**parameters)
    steps = {identifier: _zenml(config, runs, found.step.name) for identifier, found in probe.invocations.items()}
    whole: dict[str, Any] = {}
    if docker := _docker(config, None, "data"):
        whole["settings"] = {"docker": docker}  # of the pod that starts the others
    if config.components["orchestrator"].flavor == "kubeflow":
        whole["execution_mode"] = ExecutionMode.CONTINUE_ON_FAILURE  # the one that it knows
    return pipeline.with_options(steps=steps, **whole)


def _check_gpus(runs: RunSettings, recipe: Recipe | None) -> None:
    gpus = runs.of("train_adapter").gpu
    if recipe and gpus and recipe.train.resources.processes_per_node > gpus:
        raise ConfigError(
            f"train.resources of {recipe.adapter} ask for {recipe.train.resources.processes_per_node} processes on a "
            f"machine, and the run settings give train_adapter {gpus} GPU(s): each process takes one"
        )


def _zenml(config: StackConfig, runs: RunSettings, step: str) -> dict[str, Any]:
    given, cluster = runs.of(step), config.cluster
    resources = {"cpu_count": given.cpu, "memory": given.memory, "gpu_count": given.gpu}
    settings: dict[str, Any] = {"resources": {key: value for key, value in resources.items() if value is not None}}
    settings["docker"] = _docker(config, given.image, KIND_OF[step])
    settings["orchestrator"] = _pod(config, given)
    made: dict[str, Any] = {
        "settings": {key: value for key, value in settings.items() if value},
        "environment": {**(cluster.environment if cluster else {}), **given.environment},
    }
    if cluster:
        made["environment"]["POCKETLOOP_HOME"] = cluster.home.path
    if given.retry:
        retry = given.retry
        made["retry"] = {"max_retries": retry.retries, "delay": retry.delay_s, "backoff": retry.backoff}
    if given.caching is not None:
        made["enable_cache"] = given.caching
    return made


def _docker(config: StackConfig, image: str | None, kind: Kind) -> dict[str, Any]:
    registry = config.components.get("container_registry")
    if registry is None:
        return {}
    return {"parent_image": image or image_reference(kind, str(registry.configuration["uri"])), **_AS_BUILT}


def _pod(config: StackConfig, given: StepRun) -> dict[str, Any]:
    """What a step's pod is given on Kubernetes; ZenML's Kubeflow orchestrator takes none of it (stacks/kubeflow.py)."""
    cluster = config.cluster
    if config.components["orchestrator"].flavor != "kubernetes":
        return {}
    pod: dict[str, Any] = {"node_selectors": given.node_selector or {}}
    if cluster:
        pod["volumes"] = [{"name": "home", "persistentVolumeClaim": {"claimName": cluster.home.claim}}]
        pod["volume_mounts"] = [{"name": "home", "mountPath": cluster.home.path}]
        pod["env"] = [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for secret, keys in cluster.secrets.items()
            for key, variable in keys.items()
        ]
    return {"pod_settings": pod}
