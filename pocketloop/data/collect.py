"""Collect: what a recipe may learn from, taken from the event log and from example files.

Events stay in the log: what is written of them is a manifest of shards (`pocketloop.data.shards`). The files depend on
the log, the recipe and the day; one event at a time passes through memory.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.files import atomic_file, canonical_json
from pocketloop.contracts.recipe import DataConfig, EventsSource, ExamplesSource, Recipe
from pocketloop.contracts.reports import CollectReport, StageCount
from pocketloop.data.event_log import forgotten_devices, open_log, watermark
from pocketloop.data.example_files import stream_examples
from pocketloop.data.shards import MANIFEST, Row, write_manifest


def collect(recipe: Recipe, log: Path, out: Path, now: datetime) -> CollectReport:
    """Write what `recipe.data` names into the folder `out`.

    Files: `shards.jsonl` (which events of the log, see `LogShards`), `examples.jsonl` (`Example`), `quarantine.jsonl`
    (`Quarantined`: what was left out although its skill fits). `now` (aware) counts by its UTC day alone. The count is
    over every event of the log, if the recipe names it as a source, and every line of its example files.

    Raises:
        DataError: a source cannot be read, or nothing is left to learn from.
    """
    out.mkdir(parents=True, exist_ok=True)
    tally = _Tally()
    with atomic_file(out / "quarantine.jsonl") as noted, open(noted, "w", encoding="utf-8") as quarantine:
        events = _collect_events(recipe.data, log, out / MANIFEST, now, tally, quarantine)
        examples = _collect_examples(recipe, log, out / "examples.jsonl", tally, quarantine)
    left_out = dict(sorted(tally.left_out.items()))
    if not events and not examples:
        raise DataError(_why_nothing(recipe, log, left_out))
    kept = events + examples
    return CollectReport(
        count=StageCount(stage="collect", entered=kept + tally.left_out.total(), kept=kept, left_out=left_out),
        events=events,
        examples=examples,
        by_source=tally.by_source,
        policies=sorted(tally.policies),
        watermark=tally.watermark,
    )


@dataclass
class _Tally:
    """What was taken and what was left, over all sources."""

    by_source: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    policies: set[str] = field(default_factory=set)
    watermark: int = 0


def _collect_events(
    data: DataConfig, log: Path, manifest: Path, now: datetime, tally: _Tally, quarantine: TextIO
) -> int:
    """Write the manifest; returns the number of events in it."""
    skills = skills_of(data)
    tally.by_source.update({f"events:{skill}": 0 for skill in skills})
    if not skills or not (log / "log.sqlite").is_file():
        return write_manifest(manifest, [])
    with open_log(log) as connection:
        connection.execute("BEGIN")  # one snapshot, whatever is imported meanwhile
        tally.watermark = watermark(connection)
        others = "SELECT count(*) FROM events WHERE skill NOT IN (SELECT value FROM json_each(?))"
        (count,) = connection.execute(others, (json.dumps(skills),)).fetchone()
        if count:
            tally.left_out["other skill"] = count
        return write_manifest(manifest, _kept(connection, data, now, tally, quarantine))


def _kept(
    connection: sqlite3.Connection, data: DataConfig, now: datetime, tally: _Tally, quarantine: TextIO
) -> Iterator[Row]:
    """What may be used, in order; notes why the rest may not."""
    oldest = oldest_day(data.max_age_days, now)
    rows = connection.execute(
        "SELECT seq, digest, event_id, substr(ts, 1, 10), skill, training, policy FROM events"
        " WHERE skill IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (json.dumps(skills_of(data)),),
    )
    for seq, digest, event_id, day, skill, training, policy in rows:
        reason = detail = ""
        if not training:
            reason, detail = "no consent", "consent.training is false"
        elif data.consent_policies is not None and policy not in data.consent_policies:
            reason, detail = "other policy", f"given under {policy}"
        elif day < oldest:
            reason, detail = "too old", f"{day} is before {oldest}"
        if reason:
            tally.left_out[reason] += 1
            _write(quarantine, Quarantined(stage="collect", reason=reason, detail=detail, event_id=event_id))
        else:
            tally.by_source[f"events:{skill}"] += 1
            tally.policies.add(policy)
            yield Row(seq, digest)


def _collect_examples(recipe: Recipe, log: Path, path: Path, tally: _Tally, quarantine: TextIO) -> int:
    """Write the examples of all sources; returns their number."""
    count = 0
    forgotten: set[str] = set()
    if (log / "log.sqlite").is_file():
        with open_log(log) as connection:
            forgotten = forgotten_devices(connection)
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        for source in recipe.data.sources:
            if isinstance(source, ExamplesSource):
                before = count
                for row in stream_examples(source.uri, recipe.task, forgotten, role=source.role or ""):
                    if isinstance(row, Quarantined):
                        tally.left_out[row.reason] += 1
                        _write(quarantine, row)
                    else:
                        _write(out, row)
                        count += 1
                tally.by_source[source.uri] = tally.by_source.get(source.uri, 0) + count - before
    return count


def _write(out: TextIO, row: BaseModel) -> None:
    out.write(canonical_json(row.model_dump(mode="json")) + "\n")


def skills_of(data: DataConfig) -> list[str]:
    """The skills whose events the recipe takes."""
    return sorted({source.skill for source in data.sources if isinstance(source, EventsSource)})


def oldest_day(max_age_days: float, now: datetime) -> str:
    """The first day (`2026-11-21`) whose events are young enough; empty when all are."""
    try:
        return (now.astimezone(UTC) - timedelta(days=max_age_days)).date().isoformat()
    except OverflowError:
        return ""


def _why_nothing(recipe: Recipe, log: Path, left_out: dict[str, int]) -> str:
    where = f"recipe {recipe.adapter}: nothing to learn from"
    if left_out:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        return (
            f"{where}: all events were left out ({counts}); look at data.sources, data.consent_policies and "
            "data.max_age_days, or import newer events"
        )
    skills = ", ".join(skills_of(recipe.data))
    return f"{where}: no events of skill {skills} in {log}; `pocketloop data import FILE` brings them in"
