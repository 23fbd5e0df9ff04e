"""Scrubbing shards of raw events in bounded memory, each at most once per scrubber.

Two passes. The first scrubs each shard by itself and notes, privately, the values found in it by device. The second
looks where values of the same device from other shards stand verbatim, and scrubs only those events again; the result
is that of scrubbing all of a device's events together. Both passes remember what they did, so that a few new events
touch few shards.
"""

import heapq
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from pocketloop.contracts.collecting import ComputeConfig, ShardSource
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import atomic_dir, canonical_json, read_jsonl, write_jsonl
from pocketloop.contracts.kept import place, tidy
from pocketloop.contracts.reports import LeakAudit, ScrubReport, StageCount
from pocketloop.privacy.entries import (
    EVENTS,
    FOUND,
    QUARANTINE,
    STATS,
    DeviceValues,
    Entry,
    fingerprint_key,
    merged,
)
from pocketloop.privacy.report import PAGE, write_page
from pocketloop.privacy.scrubber import Scrubber

EXAMPLES = "examples.jsonl"
_ENOUGH_FOR_BLOCKS = 8
"""Cold shards from which starting processes pays."""
_MERGED_AT_ONCE = 100


def scrub_shards(
    source: ShardSource,
    out: Path,
    scrubber: Scrubber,
    cache: Path,
    *,
    collected: Path | None = None,
    compute: ComputeConfig | None = None,
    audit: LeakAudit | None = None,
) -> ScrubReport:
    """Scrub shards of raw events into the folder `out`, taking unchanged ones from `cache`.

    Writes for each shard `NAME.jsonl`, one `ScrubbedEvent` a line; `quarantine.jsonl`, what was left out (`where` is
    shard:number); `found.jsonl` with keyed fingerprints of the values found, one line each: `fingerprint`, `type`,
    `tokens`, `length` (characters without separators), `distinctive`, `count`; and the page `scrub.html`. No file holds
    a raw value. The same events, key and scrubber give the same bytes, whoever computes them.

    Args:
        source: raw events; each device's may lie in any number of shards.
        out: replaced if it is there.
        scrubber: what is looked for, and the key of the pseudonyms.
        cache: a folder only for this; raw values lie in it, readable for the owner alone.
        collected: the folder of the stage before; its examples (written to be learnt from, so not scrubbed) and its
            quarantine travel on.
        compute: with more than one worker, shards that were never scrubbed are scrubbed in parallel.
        audit: the scrubber's figures on labelled text, for report and page.

    Raises:
        DataError: two shards share a name, or one bears a name that is taken here.
    """
    names = source.names()
    taken = {name.removesuffix(".jsonl") for name in (QUARANTINE, FOUND, EXAMPLES)}
    twice = sorted(name for name, times in Counter(names).items() if times > 1 or name in taken)
    if twice:
        raise DataError(f"shards must have names of their own, these do not: {', '.join(twice)}")
    tidy(cache, suffix=f"-{scrubber.pseudonyms.key_digest[:8]}")
    entries = {name: Entry(cache, source.digest(name), scrubber) for name in sorted(names)}
    cold = [name for name, entry in entries.items() if not entry.exists()]
    _build(source, cold, entries, scrubber, cache, compute)
    known = DeviceValues()
    for entry in entries.values():
        for group, forms in entry.values().items():
            known.add(group, forms)
    scrubbed, kept, caught = set(cold), 0, 0
    found, left_out = Counter[str](), Counter[str]()
    with atomic_dir(out) as folder:
        examples = _carry(collected, folder)
        with open(folder / QUARANTINE, "a", encoding="utf-8") as quarantine:
            for name, entry in entries.items():
                settled, again = entry.settle(known, source.read(name))
                if again:
                    scrubbed.add(name)
                place(settled / EVENTS, folder / f"{name}.jsonl")
                stats = json.loads((settled / STATS).read_text(encoding="utf-8"))
                kept += stats["kept"]
                caught += stats["caught"]
                found.update(stats["found"])
                left_out.update(stats["left_out"])
                for row in read_jsonl(settled / QUARANTINE):
                    quarantine.write(canonical_json({**row, "where": f"{name}:{row['where']}"}) + "\n")
        _merge_found([entry.path / FOUND for entry in entries.values()], folder / FOUND, cache)
        kept += examples
        count = StageCount(
            stage="scrub",
            entered=kept + sum(left_out.values()),
            kept=kept,
            left_out=dict(sorted(left_out.items())),
        )
        report = ScrubReport(
            count=count,
            found=dict(sorted(found.items())),
            reused_shards=len(names) - len(scrubbed),
            scrubbed_shards=len(scrubbed),
            caught=caught,
            scrubber=scrubber.digest,
            audit=audit,
        )
        write_page(folder / PAGE, report)
    return report


def _build(
    source: ShardSource,
    cold: list[str],
    entries: dict[str, Entry],
    scrubber: Scrubber,
    cache: Path,
    compute: ComputeConfig | None,
) -> None:
    parallel = compute is not None and (compute.workers > 1 or compute.executor != "local")
    if compute is None or not parallel or len(cold) < _ENOUGH_FOR_BLOCKS:
        for name in cold:
            entries[name].build(source.read(name))
        return
    from pocketloop.blocks.run import run_blocks
    from pocketloop.privacy.block import ScrubShards

    # Every shard is an entry of its own, which a run that was killed leaves behind: no further notes need to last.
    with tempfile.TemporaryDirectory(prefix=".blocks-", dir=cache) as work:
        block = ScrubShards(source, cold, scrubber, cache)
        run_blocks([block], min(len(cold), compute.workers * 4), compute, Path(work))


def _carry(collected: Path | None, folder: Path) -> int:
    """Copy what passes through; returns the number of examples."""
    (folder / QUARANTINE).touch()
    (folder / EXAMPLES).touch()
    if collected is None:
        return 0
    shutil.copyfile(collected / QUARANTINE, folder / QUARANTINE)
    shutil.copyfile(collected / EXAMPLES, folder / EXAMPLES)
    with open(folder / EXAMPLES, "rb") as lines:
        return sum(1 for _ in lines)


def _merge_found(files: list[Path], target: Path, cache: Path) -> None:
    """Merge sorted files of fingerprints, a limited number at a time."""
    with tempfile.TemporaryDirectory(prefix=".found-", dir=cache) as scratch:
        rounds = 0
        while len(files) > _MERGED_AT_ONCE:
            parts = [files[at : at + _MERGED_AT_ONCE] for at in range(0, len(files), _MERGED_AT_ONCE)]
            files = [_merge(part, Path(scratch) / f"{rounds}-{part_number}") for part_number, part in enumerate(parts)]
            rounds += 1
        _merge(files, target)


def _merge(files: list[Path], target: Path) -> Path:
    rows = heapq.merge(*(read_jsonl(file) for file in files), key=fingerprint_key)
    write_jsonl(target, merged(rows))
    return target
