"""What is registered, at a glance: MLflow's SQLite file, read without MLflow, whose import costs seconds.

It answers what `candidates`, `standing` and `waiting` answer, and a test holds it to them; nothing is decided on it.
"""

import sqlite3
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.home import Home
from pocketloop.registry.mlflow_store import REJECTED, Candidate, describe, released_name
from pocketloop.registry.review import said_of, waits

_LOCAL = "sqlite:///"
_DELETED = "Deleted_Internal"
"""Stage of a version that was deleted: MLflow keeps the row."""


class Glance(BaseModel):
    """The registry's candidates, newest first, and what became of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: list[Candidate]
    standing: dict[str, dict[str, str]]
    """By adapter and version, in words; what nobody has touched yet is left out."""
    waiting: list[str]
    """Adapters whose newest released version was not checked yet, or was accepted and never rolled out."""


def glance(home: Home) -> Glance | None:
    """What is registered; `None` where the registry is a server, which takes longer to ask.

    Raises:
        RegistryError: the file cannot be read, or is none of MLflow's.
    """
    if not home.mlflow_uri.startswith(_LOCAL):
        return None
    path = Path("/" + home.mlflow_uri.removeprefix(_LOCAL).lstrip("/"))
    if not path.is_file():
        return Glance(candidates=[], standing={}, waiting=[])
    try:
        versions, rejected = _read(path)
    except sqlite3.Error as error:
        raise RegistryError(f"{path}: not a registry that can be read ({error})") from None
    found = [describe(version) for version in versions if not version.name.endswith(".released")]
    adapters = sorted({one.adapter for one in found})
    released = {
        adapter: sorted((v for v in versions if v.name == released_name(adapter)), key=lambda v: v.version)
        for adapter in adapters
    }
    return Glance(
        candidates=found,
        standing={adapter: said_of(adapter, released[adapter], rejected[adapter]) for adapter in adapters},
        waiting=[adapter for adapter in adapters if waits([version.tags for version in released[adapter]])],
    )


def _read(path: Path) -> tuple[list[Any], defaultdict[str, dict[str, str]]]:
    """All versions, newest first, and by adapter why which version was rejected."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
    try:
        tags: defaultdict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        for name, version, key, value in connection.execute("SELECT name, version, key, value FROM model_version_tags"):
            tags[name, version][key] = value
        columns = "name, version, creation_time, source, run_id"
        rows = connection.execute(
            f"SELECT {columns} FROM model_versions WHERE current_stage IS NOT ?"  # noqa: S608 - constant
            " ORDER BY creation_time DESC, version DESC",
            (_DELETED,),
        ).fetchall()
        rejected: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for name, key, value in connection.execute("SELECT name, key, value FROM registered_model_tags"):
            if name.endswith(".released") and key.startswith(f"{REJECTED}."):
                rejected[name.removesuffix(".released")][key.removeprefix(f"{REJECTED}.")] = value
    finally:
        connection.close()
    versions = [
        SimpleNamespace(
            name=name, version=version, creation_timestamp=made, source=source, run_id=run, tags=tags[name, version]
        )
        for name, version, made, source, run in rows
    ]
    return versions, rejected
