"""What a stack file says: components, the server that keeps the records, and the run settings that apply."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_config


def _given(value: Any) -> Any:
    """A value without the keys that hold nothing: `${NAME:-}` leaves a key out where NAME is not set."""
    if isinstance(value, dict):
        inner = {key: _given(found) for key, found in value.items()}
        return {key: found for key, found in inner.items() if found not in ("", None, {})}
    return value


class Component(BaseModel):
    """One stack component: its flavor and that flavor's configuration."""

    model_config = ConfigDict(extra="forbid")

    flavor: str
    configuration: Annotated[dict[str, Any], BeforeValidator(_given)] = {}


class ClusterHome(BaseModel):
    """The volume claim that every step mounts as POCKETLOOP_HOME: event log, releases, prepared bases."""

    model_config = ConfigDict(extra="forbid")

    claim: str
    path: str


class Cluster(BaseModel):
    """What every step finds on the cluster, whichever node it runs on."""

    model_config = ConfigDict(extra="forbid")

    home: ClusterHome
    environment: Annotated[dict[str, str], BeforeValidator(_given)] = {}
    secrets: dict[str, dict[str, str]] = {}
    """Kubernetes Secret → its key → the environment variable that it becomes."""


class StackConfig(BaseModel):
    """A stack file."""

    model_config = ConfigDict(extra="forbid")

    name: str
    server: str | None = None
    """URL of the ZenML server that keeps the records; None is the SQLite store of this machine."""
    runs: str | None = None
    """Run settings: a name in configs/runs, or the path of a file."""
    cluster: Cluster | None = None
    components: dict[str, Component]


def stack_file(stack: str) -> Path:
    """The file of a stack that was given by its name (`stacks/NAME.yaml`) or by its path."""
    return Path(stack) if stack.endswith((".yaml", ".yml")) else project_root() / "stacks" / f"{stack}.yaml"


def load_stack(path: Path) -> StackConfig:
    """Load a stack file.

    Raises:
        ConfigError: naming file, line and key, or the environment variable that is not set.
    """
    return load_config(path, StackConfig)
