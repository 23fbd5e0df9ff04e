"""What every step shares: a workspace, a line on the terminal, metadata, and when a cached result still counts."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from zenml import log_metadata
from zenml.config import CachePolicy

from pocketloop.contracts.errors import note_stage
from pocketloop.contracts.files import sha256_file, sha256_text
from pocketloop.contracts.home import Home, project_root

_NEVER_CACHED = {"cli", "delivery", "device", "schedules", "services"}
"""Rooms whose results are never reused: a change in them leaves what was trained as it is."""


@cache
def library_digest() -> str:
    """Digest of what cached stages run and read beside their inputs: code, shipped models, catalogues and rubrics."""
    root = project_root()
    rooms = [p for p in (root / "pocketloop").iterdir() if p.is_dir() and p.name not in _NEVER_CACHED]
    rooms += [root / "steps", root / "configs" / "catalogues", root / "configs" / "rubrics"]
    files = sorted(f for room in rooms for f in room.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return sha256_text("\n".join(f"{file.relative_to(root)} {sha256_file(file)}" for file in files))


BY_CONTENT = CachePolicy(cache_func=library_digest)
"""A step's result is reused while its inputs' contents, its parameters and the library's code are the same."""


def moment(as_of: str) -> datetime:
    """The time at which a stage acts: `as_of` (RFC 3339), or now when it is empty."""
    return datetime.fromisoformat(as_of) if as_of else datetime.now(UTC)


class Stage:
    """A running stage: a scratch folder, and what it has to say for itself."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.name = name
        self.scratch = scratch
        self.summary = ""
        self.metadata: dict[str, Any] = {}

    def done(self, summary: str, **metadata: Any) -> None:
        """Set the line a person reads, and the metadata that ZenML keeps."""
        self.summary = summary
        self.metadata.update(metadata)


@contextmanager
def stage(name: str) -> Iterator[Stage]:
    """Time a stage, print its one line and log its metadata.

    Its scratch folder goes when a later stage ends: ZenML copies a returned folder only after the step has returned.
    """
    work = Home().work
    work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{name}-", dir=work))
    running = Stage(name, scratch)
    print(f"▸ {name} …", flush=True)
    started, worked = time.perf_counter(), cpu_seconds()
    try:
        yield running
        seconds = time.perf_counter() - started
        print(f"✓ {name:<10} {seconds:6.1f} s   {running.summary}", flush=True)
        cost = {"seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds() - worked, 3)}
        log_metadata(cost | running.metadata)
    except BaseException as error:
        note_stage(error, name)
        raise
    finally:
        for other in work.iterdir():
            own = other.name.startswith(f"{os.getpid()}-")
            if other != scratch and (own or not in_use(other)):
                shutil.rmtree(other, ignore_errors=True)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def in_use(scratch: Path) -> bool:
    """Whether the process that made this folder still lives."""
    import psutil

    owner = scratch.name.split("-", 1)[0]
    return owner.isdigit() and psutil.pid_exists(int(owner))
