"""A version's own page in MLflow as its history: what was decided about it, one dated line each."""

from datetime import UTC, datetime
from typing import Any

from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import Rollout
from pocketloop.registry.description import join_description, split_description
from pocketloop.registry.mlflow_store import CHAMPION, client, released_name, source_of


def write_history(
    home: Home, adapter: str, released: str, line: str, rollout: Rollout | None = None, at: datetime | None = None
) -> None:
    """Append a dated line to the page of a released version, and of the candidate that it copies.

    Tags `rollout.state`, `rollout.ppm` and `rollout.decision` of the released version follow `rollout`, the record
    after that decision. A line that is already the newest is not written again: a watcher may repeat itself.

    Raises:
        RegistryError: there is no such released version.
    """
    api, name = client(home), released_name(adapter)
    version = _version(api, name, released)
    stamp = (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    entry = f"- {stamp} UTC: {' '.join(line.split())}"
    _append(api, version, entry)
    if rollout is not None:
        last = rollout.decisions[-1] if rollout.decisions else None
        tags = {
            "rollout.state": rollout.state,
            "rollout.ppm": str(last.ppm_after if last else 0),
            "rollout.decision": f"{last.action}: {last.why}" if last else "",
        }
        set_tags(api, version, tags)
    source = source_of(adapter, version)
    if source:
        _append(api, _version(api, adapter, source), entry)


def set_champion(home: Home, adapter: str, released: str) -> None:
    """Point alias `champion` at what the fleet's stable channel serves now: later candidates are compared with it."""
    api, name = client(home), released_name(adapter)
    _version(api, name, released)
    api.set_registered_model_alias(name, CHAMPION, released)


def clear_champion(home: Home, adapter: str) -> None:
    """Remove alias `champion`: the stable channel serves no released version, the base alone."""
    from mlflow.exceptions import MlflowException

    api, name = client(home), released_name(adapter)
    try:
        api.delete_registered_model_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def set_tags(api: Any, version: Any, tags: dict[str, str]) -> None:
    """Set the tags of a version that differ."""
    for key, value in tags.items():
        if version.tags.get(key, "") != value:
            api.set_model_version_tag(version.name, version.version, key, value)


def _append(api: Any, version: Any, entry: str) -> None:
    once, lines = split_description(version.description)
    if lines[-1:] == [entry]:
        return
    api.update_model_version(version.name, version.version, join_description(once, [*lines, entry]))


def _version(api: Any, name: str, number: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return api.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(f"{name} has no version {number}") from None
