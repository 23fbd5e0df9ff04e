"""How the last run of each pipeline went: one small file a pipeline and adapter, which the status page reads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from pocketloop.contracts.errors import DataError, PocketloopError, TrainingInterrupted, stage_of
from pocketloop.contracts.files import write_json
from pocketloop.contracts.home import Home

Outcome = Literal["running", "finished", "failed", "interrupted"]


class RunRecord(BaseModel):
    """One run: what, when, and how it ended."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str
    subject: str
    """The adapter, or the base; empty where the pipeline is about none."""
    started: AwareDatetime
    ended: AwareDatetime | None = None
    outcome: Outcome = "running"
    stage: str = ""
    """The stage that failed."""
    error: str = ""
    """Kind of the error: its message may quote somebody's data."""
    result: str = ""
    """What came out, such as `functions@2, verdict pass`."""
    pid: int


@contextmanager
def recorded(home: Home, pipeline: str, subject: str) -> Iterator[None]:
    """Keep a record of the run that is done inside; one that is killed stays `running`, with a process that is gone."""
    record = RunRecord(pipeline=pipeline, subject=subject, started=datetime.now(UTC), pid=os.getpid())
    write_json(_path(home, pipeline, subject), record)
    outcome: Outcome = "finished"
    try:
        yield
    except BaseException as error:
        told_to_end = isinstance(error, TrainingInterrupted) or not isinstance(error, Exception)
        outcome = "interrupted" if told_to_end else "failed"
        stage, kind = stage_of(error), "" if isinstance(error, PocketloopError) else type(error).__name__
        record = record.model_copy(update={"stage": stage, "error": kind})
        raise
    finally:
        ended = record.model_copy(update={"ended": datetime.now(UTC), "outcome": outcome})
        write_json(_path(home, pipeline, subject), ended)


def note_result(home: Home, pipeline: str, subject: str, result: str) -> None:
    """Say in the record of a finished run what came out."""
    path = _path(home, pipeline, subject)
    write_json(path, _read(path).model_copy(update={"result": result}))


def read_runs(home: Home) -> list[RunRecord]:
    """The last run of each pipeline and adapter, newest first.

    Raises:
        DataError: a record cannot be read.
    """
    return sorted((_read(path) for path in home.runs.glob("*.json")), key=lambda run: run.started, reverse=True)


def is_alive(run: RunRecord) -> bool:
    """Whether a run that has not ended still has its process."""
    import psutil

    return run.outcome == "running" and psutil.pid_exists(run.pid)


def _path(home: Home, pipeline: str, subject: str) -> Path:
    return home.runs / f"{pipeline}-{subject or 'all'}.json"


def _read(path: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DataError(f"{path}: not a run's record that can be read; delete it") from None
