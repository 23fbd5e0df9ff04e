"""News: how much an adapter has not learnt from yet, told without running anything.

What the adapter's last finished run was given is remembered as the newest event's number and, for each example file,
how many lines it had and their digest. A file that only grew has as many new examples as lines were added; one that
was changed otherwise, or is new, counts whole.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.files import sha256_text, write_json
from pocketloop.contracts.home import Home
from pocketloop.contracts.parts import Part
from pocketloop.contracts.recipe import ExamplesSource, Recipe
from pocketloop.data.collect import oldest_day, skills_of
from pocketloop.data.event_log import open_log, watermark
from pocketloop.data.example_files import find_example_file, stream_examples
from pocketloop.data.lines import open_raw, read_lines

_GENERATED = "demo://"


class FileSeen(Part):
    """An example file as a run read it."""

    lines: int
    digest: str
    """Over the lines that are not blank."""


class Seen(Part):
    """What an adapter's last finished run was given."""

    watermark: int = 0
    """Number of the newest event that the log held."""
    examples: dict[str, FileSeen] = Field(default_factory=dict)


class News(NamedTuple):
    """What came since."""

    events: int
    """That the recipe may learn from: of its skills, with consent, young enough."""
    examples: int
    """Lines added to example files, or of files that changed."""

    @property
    def total(self) -> int:
        """New examples in all."""
        return self.events + self.examples


def read_seen(home: Home, adapter: str) -> Seen:
    """What the adapter's last finished run was given; nothing when there was none, or the record is not readable."""
    try:
        return Seen.model_validate_json(_record(home, adapter).read_bytes())
    except (OSError, ValidationError):
        return Seen()


def write_seen(home: Home, adapter: str, seen: Seen) -> None:
    """Remember what a run that came to its end was given."""
    write_json(_record(home, adapter), seen)


def look_for_news(recipe: Recipe, log: Path, seen: Seen, now: datetime) -> News:
    """Count what came since `seen` into the log in the folder `log` and the recipe's example files.

    Raises:
        DataError: an example file or the log cannot be read.
    """
    added = sum(_added(uri, recipe, seen.examples.get(uri)) for uri in _files(recipe))
    return News(_new_events(recipe, log, seen.watermark, now), added)


def example_files_now(recipe: Recipe) -> dict[str, FileSeen]:
    """The recipe's example files by address, to be remembered once a run that reads them has come to its end.

    Raises:
        DataError: one cannot be read.
    """
    return {uri: _look_at(uri, None)[0] for uri in _files(recipe)}


def _files(recipe: Recipe) -> list[str]:
    return list(dict.fromkeys(source.uri for source in recipe.data.sources if isinstance(source, ExamplesSource)))


def _new_events(recipe: Recipe, log: Path, since: int, now: datetime) -> int:
    skills, data = skills_of(recipe.data), recipe.data
    if not skills or not (log / "log.sqlite").is_file():
        return 0
    policies = None if data.consent_policies is None else json.dumps(list(data.consent_policies))
    with open_log(log) as connection:
        if watermark(connection) < since:  # the log was started anew
            since = 0
        (count,) = connection.execute(
            "SELECT count(*) FROM events WHERE seq > :since AND training AND substr(ts, 1, 10) >= :oldest"
            " AND skill IN (SELECT value FROM json_each(:skills))"
            " AND (:policies IS NULL OR policy IN (SELECT value FROM json_each(:policies)))",
            {
                "since": since,
                "oldest": oldest_day(data.max_age_days, now),
                "skills": json.dumps(skills),
                "policies": policies,
            },
        ).fetchone()
    return int(count)


def _added(uri: str, recipe: Recipe, before: FileSeen | None) -> int:
    """How many lines behind `uri` are new."""
    now, added = _look_at(uri, before)
    if now == before or not uri.startswith(_GENERATED):
        return added
    return sum(not isinstance(row, Quarantined) for row in stream_examples(uri, recipe.task))


def _look_at(uri: str, before: FileSeen | None) -> tuple[FileSeen, int]:
    """An example file as it is, and how many of its lines are new; a generated set is told by its address alone."""
    if uri.startswith(_GENERATED):
        return FileSeen(lines=0, digest=sha256_text(uri)), 0
    content, lines, known = hashlib.sha256(), 0, 0
    with open_raw(find_example_file(uri)) as raw:
        for line in read_lines(raw):
            if line.problem is None and not line.data.strip():
                continue
            content.update(line.data + b"\n")
            lines += 1
            if before is not None and lines == before.lines and content.hexdigest() == before.digest:
                known = lines
    return FileSeen(lines=lines, digest=content.hexdigest()), lines - known


def _record(home: Home, adapter: str) -> Path:
    return home.schedules / adapter / "seen.json"
