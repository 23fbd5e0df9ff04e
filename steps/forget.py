"""Forget a device: everywhere under the home and in the landing zone, with a list of what its data touched."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.home import Home
from pocketloop.contracts.kept import forget_device
from pocketloop.data.forget import Erased, TouchedRelease, Traces, bury, erase_raw, touched_releases, traces_of
from pocketloop.data.received import Received
from pocketloop.registry.erase import erase_answers
from pocketloop.registry.touched import TouchedVersion, versions_trained_on
from steps.stage import in_use

ERASED = "erased"
"""Tag of an artifact version whose files were removed because a device was forgotten."""


class ForgetReport(BaseModel):
    """What was erased where, or in a dry run would be, and what stays: releases, and the versions trained on them."""

    model_config = ConfigDict(extra="forbid")

    device: str
    """sha256 of the device's id."""
    group: str
    """Its pseudonym in scrubbed records."""
    known: bool
    """Whether anything of it was found anywhere."""
    raw: Erased
    kept: int
    """Entries of the caches in which stages keep what they made of a shard, made of its records."""
    artifacts: list[str]
    """Intermediate results of earlier runs (`name/version` in ZenML) whose files held its records."""
    answers: int
    """Answers that were put before people in MLflow."""
    work: int
    """Scratch folders of finished steps."""
    running: int
    """Scratch folders of steps that run now: what they hold was left alone."""
    releases: list[TouchedRelease]
    versions: list[TouchedVersion]
    dry_run: bool


def forget(home: Home, received: Received, device_id: str, now: datetime, dry_run: bool = False) -> ForgetReport:
    """Erase a device's data and keep it out from now on; may be repeated, and goes on where a killed run stopped.

    ZenML's environment must be set up (`pocketloop.cli.running.environment`, or a running pipeline).

    Raises:
        DataError: a place could not be written; what was erased by then is erased, run it again.
    """
    traces = traces_of(home, device_id)
    releases = touched_releases(home, traces)
    if not dry_run:
        bury(home, received, traces, releases, now)
    versions = versions_trained_on(home, {release.digest for release in releases})
    artifacts = erase_artifacts(home, traces, dry_run)
    answers = erase_answers(home, traces.event_ids, dry_run)
    cached = sum(forget_device(home.cache / name, traces.group, dry_run) for name in ("scrub", "curation"))
    work, running = _erase_work(home, dry_run)
    raw = erase_raw(home, received, traces, dry_run)
    found = sum(raw.model_dump().values())
    return ForgetReport(
        device=traces.digest,
        group=traces.group,
        known=bool(found or artifacts or releases or cached or answers),
        raw=raw,
        kept=cached,
        artifacts=artifacts,
        answers=answers,
        work=work,
        running=running,
        releases=releases,
        versions=versions,
        dry_run=dry_run,
    )


def erase_artifacts(home: Home, traces: Traces, dry_run: bool = False) -> list[str]:
    """Remove the files of every stored folder in which the device shows; returns their names and versions.

    The run's record stays, tagged `erased`. The step that made such a folder is no longer reused: ZenML would otherwise
    hand out an artifact without files.
    """
    config = Path(os.environ.get("ZENML_CONFIG_PATH", home.zenml))
    if "ZENML_STORE_URL" not in os.environ and not (config.is_dir() and any(config.iterdir())):
        return []  # nothing was ever run here
    from zenml.client import Client

    client = Client()
    erased = []
    for version in _folders(client):
        if not _shows(version.uri, traces):
            continue
        erased.append(f"{version.artifact.name}/{version.version}")
        if dry_run:
            continue
        if version.producer_step_run_id:
            client.update_step_run(version.producer_step_run_id, cache_expires_at=datetime.now(UTC))
        client.delete_artifact_version(version.id, delete_metadata=False, delete_from_artifact_store=True)
        client.update_artifact_version(version.id, add_tags=[ERASED])
    return sorted(erased)


def _folders(client: Any) -> list[Any]:
    """All artifact versions that are folders."""
    found: list[Any] = []
    page = 1
    while True:
        versions = client.list_artifact_versions(sort_by="created", page=page, size=200)
        found += [v for v in versions.items if v.data_type.import_path == "pocketloop.contracts.files.Folder"]
        if page >= versions.total_pages:
            return found
        page += 1


def _shows(uri: str, traces: Traces) -> bool:
    from zenml.io import fileio

    if not fileio.exists(uri):
        return False
    for folder, _, names in fileio.walk(uri):
        for name in names:
            with fileio.open(f"{folder}/{name}", "rb") as lines:
                if traces.in_lines(lines):
                    return True
    return False


def _erase_work(home: Home, dry_run: bool) -> tuple[int, int]:
    """Remove the scratch folders of steps that have ended; how many these are, and how many belong to living ones."""
    folders = list(home.work.glob("*"))
    ended = [folder for folder in folders if not in_use(folder)]
    for folder in ended if not dry_run else []:
        shutil.rmtree(folder, ignore_errors=True)
    return len(ended), len(folders) - len(ended)
