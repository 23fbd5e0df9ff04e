"""Collect: what a recipe may learn from, taken from the event log and from example files.

Events are written in shards of 500 consecutive numbers of the log. A new event only ever touches the last shard, so a
later stage that remembers shards by digest works on what is new. The files depend on the log, the recipe and the day.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import atomic_file, write_jsonl
from pocketloop.contracts.recipe import DataConfig, EventsSource, ExamplesSource, Recipe
from pocketloop.contracts.reports import CollectReport
from pocketloop.data.event_log import open_log
from pocketloop.data.example_files import read_examples

SHARD = 500


def collect(recipe: Recipe, log: Path, out: Path, now: datetime) -> CollectReport:
    """Write what `recipe.data` names into the folder `out`.

    Files: `events-FIRST-LAST.jsonl` (events as they were posted), `examples.jsonl` (`Example`), `quarantine.jsonl`
    (`Quarantined`: what was left out although its skill fits). `now` (aware) counts by its UTC day alone.

    Raises:
        DataError: a source cannot be read, or nothing is left to learn from.
    """
    out.mkdir(parents=True, exist_ok=True)
    tally = _Tally()
    watermark = _collect_events(recipe.data, log, out, now, tally)
    events = sum(tally.by_source.values())
    examples = _collect_examples(recipe, tally)
    left_out = dict(sorted(tally.left_out.items()))
    if not events and not examples:
        raise DataError(_why_nothing(recipe, log, left_out))
    write_jsonl(out / "examples.jsonl", examples)
    write_jsonl(out / "quarantine.jsonl", tally.quarantine)
    return CollectReport(
        events=events,
        examples=len(examples),
        by_source=tally.by_source,
        left_out=left_out,
        policies=sorted(tally.policies),
        watermark=watermark,
    )


@dataclass
class _Tally:
    """What was taken and what was left, over all sources."""

    by_source: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    policies: set[str] = field(default_factory=set)
    quarantine: list[Quarantined] = field(default_factory=list)


def _collect_events(data: DataConfig, log: Path, out: Path, now: datetime, tally: _Tally) -> int:
    """Write the shards; returns the number of the newest event in the log."""
    skills = _skills(data)
    tally.by_source.update({f"events:{skill}": 0 for skill in skills})
    if not skills or not (log / "log.sqlite").is_file():
        return 0
    with open_log(log) as connection:
        connection.execute("BEGIN")  # one snapshot, whatever is imported meanwhile
        (watermark,) = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        others = "SELECT count(*) FROM events WHERE skill NOT IN (SELECT value FROM json_each(?))"
        (count,) = connection.execute(others, (json.dumps(skills),)).fetchone()
        if count:
            tally.left_out["other skill"] = count
        for shard, rows in groupby(_kept(connection, data, now, tally), key=lambda row: (row[0] - 1) // SHARD):
            path = out / f"events-{shard * SHARD + 1:09d}-{(shard + 1) * SHARD:09d}.jsonl"
            with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
                for _, skill, policy, raw in rows:
                    file.write(raw + "\n")
                    tally.by_source[f"events:{skill}"] += 1
                    tally.policies.add(policy)
    return int(watermark)


def _kept(
    connection: sqlite3.Connection, data: DataConfig, now: datetime, tally: _Tally
) -> Iterator[tuple[int, str, str, str]]:
    """(sequence number, skill, policy, raw) of what may be used, in order; notes why the rest may not."""
    oldest = _oldest_day(data.max_age_days, now)
    rows = connection.execute(
        "SELECT seq, event_id, substr(ts, 1, 10), skill, training, policy, raw FROM events"
        " WHERE skill IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (json.dumps(_skills(data)),),
    )
    for seq, event_id, day, skill, training, policy, raw in rows:
        reason = detail = ""
        if not training:
            reason, detail = "no consent", "consent.training is false"
        elif data.consent_policies is not None and policy not in data.consent_policies:
            reason, detail = "other policy", f"given under {policy}"
        elif day < oldest:
            reason, detail = "too old", f"{day} is before {oldest}"
        if reason:
            tally.left_out[reason] += 1
            tally.quarantine.append(Quarantined(stage="collect", reason=reason, detail=detail, event_id=event_id))
        else:
            yield seq, skill, policy, raw


def _collect_examples(recipe: Recipe, tally: _Tally) -> list[Example]:
    examples: list[Example] = []
    for source in recipe.data.sources:
        if isinstance(source, ExamplesSource):
            found, refused = read_examples(source.uri, recipe.task)
            tally.by_source[source.uri] = len(found)
            tally.left_out.update(row.reason for row in refused)
            tally.quarantine += refused
            examples += found
    return examples


def _skills(data: DataConfig) -> list[str]:
    return sorted({source.skill for source in data.sources if isinstance(source, EventsSource)})


def _oldest_day(max_age_days: float, now: datetime) -> str:
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
    skills = ", ".join(_skills(recipe.data))
    return f"{where}: no events of skill {skills} in {log}; `pocketloop data import FILE` brings them in"
