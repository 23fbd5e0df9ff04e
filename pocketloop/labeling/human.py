"""People's verdicts in files: JSON lines {event_id or example_id, rubric, verdict, rater}."""

import json
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.contracts.home import Home, project_root
from pocketloop.contracts.labels import RIGHT_ANSWER, HumanVerdict

_KEYS = ("event_id", "example_id", "rubric", "verdict", "rater")


def known_rubrics() -> list[str]:
    """Names of `configs/rubrics/*.yaml`."""
    return sorted(path.stem for path in (project_root() / "configs" / "rubrics").glob("*.yaml"))


def read_verdicts(path: Path, rubrics: Collection[str]) -> list[HumanVerdict]:
    """Read a file of verdicts; a rater's later word on an answer replaces the earlier one.

    Raises:
        DataError: naming file, line and key of what cannot be used.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    return merged(_verdict(line, f"{path}:{number}", rubrics) for number, line in enumerate(lines, 1) if line.strip())


def merged(verdicts: Iterable[HumanVerdict]) -> list[HumanVerdict]:
    """One verdict a rater, rubric and answer: the last one."""
    latest = {(v.event_id, v.example_id, v.rubric, v.rater): v for v in verdicts}
    return list(latest.values())


def imported_verdicts(home: Home) -> list[HumanVerdict]:
    """What was imported so far, for every recipe."""
    path = _store(home)
    return [HumanVerdict.model_validate(row) for row in read_jsonl(path)] if path.is_file() else []


def import_verdicts(home: Home, path: Path) -> tuple[int, int]:
    """Keep a file's verdicts for every later run; returns how many it holds, and how many are new or changed.

    Raises:
        DataError: as `read_verdicts`; nothing is kept then.
    """
    given, before = read_verdicts(path, known_rubrics()), imported_verdicts(home)
    after = merged([*before, *given])
    write_jsonl(_store(home), after)
    return len(given), len(set(after) - set(before))


def _store(home: Home) -> Path:
    return home.root / "labels" / "human.jsonl"


def _verdict(line: str, where: str, rubrics: Collection[str]) -> HumanVerdict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not a JSON object") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object")
    for key in row:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, 1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(_KEYS)}"
            raise DataError(f"{where}: unknown key `{key}`; {hint}")
    if (row.get("event_id") is None) == (row.get("example_id") is None):
        raise DataError(f"{where}: give either `event_id` or `example_id`")
    if "verdict" not in row:
        raise DataError(f"{where}: key `verdict` is missing (right or wrong)")
    rubric = row.get("rubric", RIGHT_ANSWER)
    if rubric not in rubrics:
        near = get_close_matches(str(rubric), list(rubrics), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(rubrics))}"
        raise DataError(f"{where}: key `rubric`: no rubric {rubric!r}; {hint}")
    try:
        return HumanVerdict.model_validate(row)
    except ValidationError as error:
        item = error.errors()[0]
        raise DataError(f"{where}: key `{item['loc'][0]}`: {item['msg']} (given: {item['input']!r})") from None
