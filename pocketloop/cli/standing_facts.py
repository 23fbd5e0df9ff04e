"""Reading where things stand, each room's facts through that room; what cannot be read is a line of its own.

Neither ZenML nor MLflow is imported: the page answers in well under a second.
"""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from pocketloop.cli.runs import is_alive, read_runs
from pocketloop.cli.standing import Base, Climbing, Planned, Run, Standing, Waiting
from pocketloop.contracts.errors import DataError, PocketloopError
from pocketloop.contracts.home import Home, project_root

_MOST_FILES = 20_000
_LOCAL = "sqlite:"
Found = TypeVar("Found")


def read_standing(home: Home, now: datetime) -> Standing:
    """Everything that the status page says; raises nothing for what is damaged, foreign or gone."""
    doubts: list[str] = []

    def read(what: str, function: Callable[[], Found]) -> Found | None:
        try:
            return function()
        except Exception as error:  # whatever lies there, the page says so and goes on
            told = str(error) if isinstance(error, PocketloopError | OSError) else ""  # others may quote what was read
            doubts.append(f"{what}: {' '.join(told.split()) or f'cannot be read ({type(error).__name__})'}")
            return None

    if not home.root.is_dir():
        return Standing(at=now, home=_shown(home.root), exists=False)
    sizes, more = read("state", lambda: folder_sizes(home.root)) or ({}, False)
    releases = read("releases", lambda: _releases(home)) or {}
    watermarks = read("releases", lambda: {name: _watermark(home, digest) for name, digest in releases.items()}) or {}
    events, new = read("events", lambda: _events(home, watermarks)) or (0, {})
    return Standing(
        at=now,
        home=_shown(home.root),
        exists=True,
        sizes=sizes,
        more_files=more,
        events=events,
        new_events=new,
        releases=releases,
        bases=read("bases", lambda: _bases(home)) or [],
        runs=read("runs", lambda: [Run(record=record, alive=is_alive(record)) for record in read_runs(home)]) or [],
        candidates=read("registry", lambda: _candidates(home)) or [],
        registry="" if home.mlflow_uri.startswith(_LOCAL) else _without_password(home.mlflow_uri),
        repository=read("repository", lambda: _has_repository(home)) or False,
        signatures=(home.staging / "proposal" / "proposal.json").is_file(),
        rollouts=read("rollouts", lambda: _rollouts(home)) or [],
        schedules=read("schedules", lambda: _schedules(home)) or [],
        doubts=doubts,
    )


def folder_sizes(root: Path) -> tuple[dict[str, int], bool]:
    """Bytes of each entry of a folder, and whether it holds more files than are counted. Links are not followed."""
    sizes: dict[str, int] = {}
    left = _MOST_FILES
    for entry in sorted(os.scandir(root), key=lambda found: found.name):
        waiting, total = [entry], 0
        while waiting and left:
            at = waiting.pop()
            if at.is_dir(follow_symlinks=False):
                waiting += os.scandir(at)
            elif at.is_file(follow_symlinks=False):
                total, left = total + at.stat(follow_symlinks=False).st_size, left - 1
        sizes[entry.name] = total
    return sizes, left == 0


def _releases(home: Home) -> dict[str, str]:
    from pocketloop.data.release import latest_release

    pointers = home.releases.glob("latest-*.json")
    found = {path.stem.removeprefix("latest-"): None for path in sorted(pointers)}
    newest = {adapter: latest_release(home, adapter) for adapter in found}
    return {adapter: digest for adapter, digest in newest.items() if digest}


def _watermark(home: Home, digest: str) -> int:
    """The newest event that a release had seen."""
    from pocketloop.data.release import RECORD

    return int(json.loads((home.releases / digest / RECORD).read_bytes())["watermark"])


def _events(home: Home, watermarks: dict[str, int]) -> tuple[int, dict[str, int]]:
    """How many the log holds, and how many are new for each adapter that has a release, or else for each recipe."""
    from pocketloop.data.event_log import count_events

    total = count_events(home.events)
    if not total:
        return 0, {}
    adapters = watermarks or {path.stem: 0 for path in (project_root() / "configs" / "adapters").glob("*.yaml")}
    found = {name: (seen, _skills(name)) for name, seen in adapters.items()}
    return total, {name: count_events(home.events, seen, skills) for name, (seen, skills) in found.items() if skills}


def _skills(adapter: str) -> set[str]:
    """Skills of the events that an adapter's recipe takes; none where it has no recipe here."""
    from pocketloop.contracts.errors import ConfigError
    from pocketloop.contracts.loading import load_recipe

    try:
        return {source.skill for source in load_recipe(adapter).data.sources if source.kind == "events"}
    except ConfigError:
        return set()


def _bases(home: Home) -> list[Base]:
    from pocketloop.contracts.reports import BaseManifest

    found = []
    for path in sorted(home.bases.glob("[0-9a-f]*/manifest.json")):
        try:
            manifest = BaseManifest.model_validate_json(path.read_bytes())
        except ValidationError:
            raise DataError(
                f"{path}: not a base of this version; `pocketloop prepare-base BASE` makes it anew"
            ) from None
        found.append(Base(base=manifest.base, quantization=manifest.quantization, digest=manifest.digest))
    return found


def _candidates(home: Home) -> list[Waiting]:
    """The newest candidate of each adapter."""
    from pocketloop.registry.glance import glance

    found = glance(home)
    newest: dict[str, Waiting] = {}
    for one in found.candidates if found else []:
        if one.adapter not in newest:
            newest[one.adapter] = Waiting(
                adapter=one.adapter,
                version=one.version,
                verdict=one.verdict,
                registered=datetime.fromisoformat(one.created),
                said=found.standing[one.adapter].get(one.version, "") if found else "",
                merged=one.merged,
                approved=found is not None and one.adapter in found.waiting,
            )
    return list(newest.values())


def _has_repository(home: Home) -> bool:
    from pocketloop.contracts.loading import load_delivery

    return bool(load_delivery().repository) or home.cdn.is_dir()


def _rollouts(home: Home) -> list[Climbing]:
    from pocketloop.delivery.rollout_store import RolloutStore

    return [
        Climbing(
            rollout=one.rollout_id,
            adapter=one.adapter,
            version=one.version,
            rung=one.rung + 1,
            rungs=len(one.ladder.rungs),
            percent=one.ladder.rungs[one.rung].percent,
            since=one.rung_started,
            may_widen=one.rung_started.astimezone(UTC) + timedelta(hours=one.ladder.rungs[one.rung].min_hours),
            looked=one.decisions[-1].at if one.decisions else one.started,
            said=one.decisions[-1].reason if one.decisions else "started",
        )
        for one in RolloutStore(home.rollouts).all()
        if one.state == "running"
    ]


def _schedules(home: Home) -> list[Planned]:
    from pocketloop.schedules.store import ScheduleStore

    return [Planned(adapter=one.adapter, cron=one.cron, paused=one.paused) for one in ScheduleStore(home).all()]


def _shown(root: Path) -> str:
    """The folder as a person at the project's root would name it."""
    return str(root.relative_to(Path.cwd())) if root.is_relative_to(Path.cwd()) else str(root)


def _without_password(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
