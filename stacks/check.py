"""What a run on a stack would find too late, found before it."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe
from pocketloop.contracts.parsing import unset_variables
from stacks.config import StackConfig, load_stack
from stacks.kinds import KIND_OF
from stacks.run_settings import RunSettings, load_runs, runs_file

_PACKAGES = {
    "kubeflow": {"kfp": "kfp", "kfp.kubernetes": "kfp-kubernetes", "kubernetes": "kubernetes"},
    "kubernetes": {"kubernetes": "kubernetes"},
    "s3": {"s3fs": "s3fs", "boto3": "boto3"},
    "mlflow": {"mlflow": "mlflow"},
}
"""By flavor: the modules that its client needs, and the packages that have them."""


class Check(BaseModel):
    """One thing that was looked at."""

    what: str
    ok: bool | None
    """None where it could not be looked at from here, which `said` explains."""
    said: str


class Problem(Exception):
    """A check failed: what was found and what to do."""


class Unseen(Exception):
    """A check could not be made from here: why."""


Probe = Callable[[], str]


def check_stack(path: Path, adapter: str | None = None) -> list[Check]:
    """Look at everything that a run on this stack needs; nothing in ZenML is changed.

    On S3 a small object is written below the artifacts' path and deleted again, because only that tells whether a
    run may write.
    """
    checks = _recipe(adapter) if adapter else []
    unset = unset_variables(path) if path.is_file() else []
    if unset:
        where = "set it before the command"
        return checks + [Check(what="environment", ok=False, said=f"{name} is not set: {where}") for name in unset]
    try:
        config = load_stack(path)
        runs = load_runs(config)
    except ConfigError as error:
        return [*checks, Check(what="file", ok=False, said=" ".join(str(error).split()))]
    said = f"stack {config.name}" + (f", run settings {runs_file(config)}" if runs else "")
    checks.append(Check(what="file", ok=True, said=said))
    missing = _packages(config)
    checks.append(_look("packages", lambda: _none_missing(missing)))
    if missing:
        return checks
    return checks + [_look(what, probe) for what, probe in _probes(path, config, runs)]


def _probes(path: Path, config: StackConfig, runs: RunSettings | None) -> Iterator[tuple[str, Probe]]:
    from stacks import cluster_probes, probes

    yield "records", lambda: probes.records(path, config)
    yield "secrets", lambda: probes.secrets(path, config)
    parts = config.components
    if "experiment_tracker" in parts:
        yield "mlflow", lambda: probes.mlflow(path, config)
    if parts["artifact_store"].flavor == "s3":
        yield "artifacts", lambda: probes.s3(path, config)
    if "container_registry" in parts:
        yield "images", lambda: probes.images(config, runs)
    orchestrator = parts["orchestrator"].flavor
    if orchestrator == "kubeflow":
        yield "kubeflow", lambda: probes.kubeflow(config)
    if orchestrator in ("kubeflow", "kubernetes"):
        yield "kubernetes", lambda: cluster_probes.reachable(config)
        yield "nodes", lambda: cluster_probes.nodes(config, runs or RunSettings(), list(KIND_OF))
        yield "volume", lambda: cluster_probes.volume(config)
        yield "pod secrets", lambda: cluster_probes.pod_secrets(config)


def _recipe(adapter: str) -> list[Check]:
    def probe() -> str:
        recipe = load_recipe(adapter)
        load_base_config(recipe.base)
        load_catalogue(recipe)
        return f"{recipe.adapter} on base {recipe.base}"

    return [_look("recipe", probe)]


def _packages(config: StackConfig) -> dict[str, list[str]]:
    """The packages that are missing, by the flavor that needs them."""
    missing: dict[str, list[str]] = {}
    for component in config.components.values():
        for module, package in _PACKAGES.get(component.flavor, {}).items():
            if not _is_there(module) and package not in missing.get(component.flavor, []):
                missing.setdefault(component.flavor, []).append(package)
    return missing


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _none_missing(missing: dict[str, list[str]]) -> str:
    if missing:
        needed = "; ".join(f"{flavor} needs {', '.join(packages)}" for flavor, packages in missing.items())
        everything = " ".join(sorted({package for packages in missing.values() for package in packages}))
        raise Problem(f"{needed}: pip install {everything}")
    return "every client is installed"


def _look(what: str, probe: Probe) -> Check:
    try:
        return Check(what=what, ok=True, said=probe())
    except Unseen as why:
        return Check(what=what, ok=None, said=str(why))
    except (Problem, ConfigError) as error:
        return Check(what=what, ok=False, said=" ".join(str(error).split()))


def local_records() -> str:
    """Where ZenML's records lie without a server."""
    return f"SQLite below {Home().zenml}"


def resolved(client: Any, value: Any) -> str:
    """A configuration's value with its secret reference, if it is one, looked up.

    Raises:
        Problem: ZenML does not hold the secret.
    """
    from stacks.plan import missing_secret, secret_references

    for name, key in secret_references(value):
        if missing := missing_secret(client, name, key):
            raise Problem(missing)
        return str(client.get_secret(name, allow_partial_name_match=False).secret_values[key])
    return str(value)
