"""Scrubbing shards of the event log, each at most once per scrubber."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.files import atomic_dir, atomic_file, read_jsonl, sha256_file, write_json, write_jsonl
from pocketloop.contracts.reports import ScrubReport
from pocketloop.privacy.records import DeviceResult, ScrubbedEvent
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.values import compact, fingerprint_forms, is_distinctive

QUARANTINE = "quarantine.jsonl"
FOUND = "found.jsonl"
_EVENTS, _STATS = "events.jsonl", "stats.json"


def scrub_shards(shards: list[Path], out: Path, scrubber: Scrubber, cache: Path) -> ScrubReport:
    """Scrub shards of raw events into `out`, taking unchanged ones from `cache`.

    Writes for each shard a file of the same name with one `ScrubbedEvent` a line; `quarantine.jsonl` with what was left
    out (`where` is shard:line); and `found.jsonl` with keyed fingerprints of the values found, one line each:
    `fingerprint`, `type`, `tokens`, `length` (characters without separators), `distinctive`, `count`. No file holds a
    raw value. The same shards, key and scrubber give the same bytes.

    Raises:
        DataError: two shards share a file name, or one bears a name that is taken here.
    """
    names = [shard.name for shard in shards]
    twice = sorted({name for name in names if names.count(name) > 1 or name in (QUARANTINE, FOUND)})
    if twice:
        raise DataError(f"shards must have names of their own, these do not: {', '.join(twice)}")
    report = ScrubReport(
        records=0, quarantined=0, found={}, reused_shards=0, scrubbed_shards=0, leaks=0, scrubber=scrubber.digest
    )
    found: Counter[str] = Counter()
    quarantine: list[dict[str, Any]] = []
    fingerprints: dict[tuple[str, str], dict[str, Any]] = {}
    with atomic_dir(out) as folder:
        for shard in sorted(shards, key=lambda path: path.name):
            entry = cache / f"{sha256_file(shard)}-{scrubber.digest}"
            if (entry / _STATS).is_file():
                report.reused_shards += 1
            else:
                _scrub_shard(shard, entry, scrubber)
                report.scrubbed_shards += 1
            _place(entry / _EVENTS, folder / shard.name)
            stats = json.loads((entry / _STATS).read_text(encoding="utf-8"))
            report.records += stats["records"]
            report.quarantined += stats["quarantined"]
            report.leaks += stats["leaks"]
            found.update(stats["found"])
            for row in read_jsonl(entry / QUARANTINE):
                quarantine.append({**row, "where": f"{shard.name}:{row['where']}"})
            _merge(fingerprints, read_jsonl(entry / FOUND))
        write_jsonl(folder / QUARANTINE, quarantine)
        write_jsonl(folder / FOUND, (fingerprints[key] for key in sorted(fingerprints)))
    return report.model_copy(update={"found": dict(sorted(found.items()))})


def _scrub_shard(shard: Path, entry: Path, scrubber: Scrubber) -> None:
    """Scrub one shard into a cache entry: device by device, written in the shard's own order."""
    devices: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    records: dict[int, ScrubbedEvent | Quarantined] = {}
    for number, raw in _lines(shard):
        if isinstance(raw, Quarantined):
            records[number] = raw
        else:
            devices.setdefault(str(raw.get("device_id")), []).append((number, raw))
    leaks = 0
    fingerprints: dict[tuple[str, str], dict[str, Any]] = {}
    for events in devices.values():
        result = scrubber.scrub_device([event for _, event in events])
        records.update(zip((number for number, _ in events), result.records, strict=True))
        leaks += result.leaks
        _merge(fingerprints, _fingerprints(result, scrubber))
    kept = {n: record for n, record in sorted(records.items()) if isinstance(record, ScrubbedEvent)}
    left_out = {n: record for n, record in sorted(records.items()) if isinstance(record, Quarantined)}
    found: Counter[str] = Counter()
    for record in kept.values():
        found.update(record.found)
    with atomic_dir(entry) as folder:
        write_jsonl(folder / _EVENTS, kept.values())
        write_jsonl(folder / QUARANTINE, (r.model_copy(update={"where": str(n)}) for n, r in left_out.items()))
        write_jsonl(folder / FOUND, (fingerprints[key] for key in sorted(fingerprints)))
        write_json(
            folder / _STATS,
            {"records": len(kept), "quarantined": len(left_out), "leaks": leaks, "found": dict(sorted(found.items()))},
        )


def _lines(shard: Path) -> Iterator[tuple[int, dict[str, Any] | Quarantined]]:
    """Numbered raw events; a line that is no JSON object is quarantined (without quoting it)."""
    with open(shard, encoding="utf-8", errors="replace") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                raw = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                raw = None
            yield number, raw if isinstance(raw, dict) else Quarantined(stage="scrub", reason="not a JSON object")


def _fingerprints(result: DeviceResult, scrubber: Scrubber) -> Iterator[dict[str, Any]]:
    for value, count in result.values.items():
        for form in fingerprint_forms(value.kind, value.text, result.region):
            yield {
                "fingerprint": scrubber.pseudonyms.fingerprint(form),
                "type": value.kind,
                "tokens": len(value.text.split()),
                "length": len(form),
                "distinctive": is_distinctive(value.kind, value.text) and len(form) >= min(7, len(compact(value.text))),
                "count": count,
            }


def _merge(into: dict[tuple[str, str], dict[str, Any]], rows: Iterable[dict[str, Any]]) -> None:
    """Add up counts by fingerprint and type; a value is distinctive only if every spelling of it is."""
    for row in rows:
        key = (row["fingerprint"], row["type"])
        known = into.setdefault(key, {**row, "count": 0})
        known["count"] += row["count"]
        known["tokens"] = max(known["tokens"], row["tokens"])
        known["distinctive"] = known["distinctive"] and row["distinctive"]


def _place(source: Path, target: Path) -> None:
    """Link a cached file into the result, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)
