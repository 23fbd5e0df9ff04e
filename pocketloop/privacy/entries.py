"""What is kept of a scrubbed shard, so that it is scrubbed once.

An entry is a folder, named by the shard's digest and the scrubber's, that only its owner can read. It holds the events
as they come out when nothing is known of other shards; the values that were found, by device (`values.jsonl`, the only
file with raw text); and one folder `settled-CONTEXT` with the events as they come out given what was found in the same
devices' other shards, of which CONTEXT is the digest.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.files import (
    atomic_dir,
    canonical_json,
    read_jsonl,
    sha256_text,
    write_json,
    write_jsonl,
)
from pocketloop.contracts.kept import is_whole, keep, place, seal
from pocketloop.privacy.leaks import LeakSearch
from pocketloop.privacy.records import ScrubbedEvent, cleaned, leaves, structured
from pocketloop.privacy.scrubber import Scrubbed, Scrubber
from pocketloop.privacy.values import Form, FormIndex, compact, fingerprint_forms, is_distinctive

EVENTS, QUARANTINE, FOUND, STATS = "events.jsonl", "quarantine.jsonl", "found.jsonl", "stats.json"
_VALUES, _META, _PATCHES = "values.jsonl", "meta.json", "patches.jsonl"
Raw = tuple[int, dict[str, Any]]


class DeviceValues:
    """The shared values of all devices, by pseudonym; one short piece of JSON a device, since there may be millions."""

    def __init__(self) -> None:
        self._forms: dict[bytes, bytes] = {}

    def add(self, group: str, forms: set[Form]) -> None:
        """Add values of a device."""
        if forms:
            known = self.of(group)
            if not forms <= known:
                self._forms[_key(group)] = canonical_json(sorted(known | forms)).encode()

    def of(self, group: str) -> set[Form]:
        """All values of a device."""
        known = self._forms.get(_key(group))
        return {(kind, text) for kind, text in json.loads(known)} if known else set()

    def context(self, groups: Iterable[str]) -> str:
        """Digest of all values of these devices."""
        return sha256_text("\n".join(f"{g} {self._forms.get(_key(g), b'').decode()}" for g in sorted(groups)))[:16]


def _key(group: str) -> bytes:
    return bytes.fromhex(group.removeprefix("g-"))


class Entry:
    """One shard's entry in the cache folder, which may not be there yet."""

    def __init__(self, cache: Path, shard_digest: str, scrubber: Scrubber) -> None:
        self.path = cache / f"{shard_digest[:40]}-{scrubber.digest}-{scrubber.pseudonyms.key_digest[:8]}"
        self._scrubber = scrubber

    def exists(self) -> bool:
        """Whether the shard has been scrubbed by this scrubber; notes that the entry is still of use."""
        return is_whole(self.path)

    def build(self, events: Iterable[Raw]) -> None:
        """Scrub the shard's raw events."""
        numbered = list(events)
        done = self._scrubber.scrub([raw for _, raw in numbered])
        numbers = [number for number, _ in numbered]
        groups = {self._group(raw) for _, raw in numbered}

        def write(folder: Path) -> set[str]:
            _write_records(folder, dict(zip(numbers, done.records, strict=True)))
            write_jsonl(folder / FOUND, _fingerprints(done, self._scrubber))
            values = ({"group": g, "values": sorted(done.shared.get(g, ()))} for g in sorted(groups))
            write_jsonl(folder / _VALUES, values)
            (folder / _VALUES).chmod(0o600)
            kept = [n for n, r in zip(numbers, done.records, strict=True) if isinstance(r, ScrubbedEvent)]
            write_json(folder / _META, {"kept": kept, "leaked": _leaked(numbers, done)})
            return groups

        keep(self.path, write)

    def values(self) -> dict[str, set[Form]]:
        """The shared values found in this shard, by device; devices without any are listed as well."""
        rows = read_jsonl(self.path / _VALUES)
        return {row["group"]: {(kind, text) for kind, text in row["values"]} for row in rows}

    def settle(self, known: DeviceValues, read: "Iterator[Raw]") -> tuple[Path, int]:
        """The shard's events given all values of its devices: their folder, and how many were scrubbed again for it.

        `read` gives the raw events; it is not touched where nothing changed.
        """
        own = self.values()
        folder = self.path / f"settled-{known.context(own)}"
        if is_whole(folder):
            return folder, 0
        earlier = [path for path in self.path.glob("settled-*") if path != folder]
        patches = {row["number"]: row for path in earlier if is_whole(path) for row in read_jsonl(path / _PATCHES)}
        foreign = {group: more for group, forms in own.items() if (more := known.of(group) - forms)}
        wanted, raws = self._touched(foreign, read) if foreign else ({}, [])
        patches = {n: row for n, row in patches.items() if row["values"] == wanted.get(n, ("", set()))[0]}
        raws = [(number, raw) for number, raw in raws if number not in patches]
        if raws:
            others = {group: set(forms) for group, forms in own.items()}
            for number, raw in raws:
                others[self._group(raw)] |= wanted[number][1]
            done = self._scrubber.scrub([raw for _, raw in raws], others)
            leaked = _leaked([number for number, _ in raws], done)
            for (number, _), record in zip(raws, done.records, strict=True):
                patches[number] = {
                    "number": number,
                    "values": wanted[number][0],
                    "kept": isinstance(record, ScrubbedEvent),
                    "leaked": leaked.get(str(number), 0),
                    "record": record.model_dump(mode="json"),
                }
        with atomic_dir(folder) as temporary:
            self._write_settled(temporary, patches, known)
            seal(temporary, own)
        for path in earlier:
            shutil.rmtree(path)
        return folder, len(raws)

    def _group(self, raw: dict[str, Any]) -> str:
        return self._scrubber.pseudonyms.group(str(raw.get("device_id")))

    def _touched(
        self, foreign: dict[str, set[Form]], read: "Iterator[Raw]"
    ) -> tuple[dict[int, tuple[str, set[Form]]], list[Raw]]:
        """Events in which a value of the device's other shards stands: a digest of these values and they themselves."""
        indexes = {group: FormIndex(forms) for group, forms in foreign.items()}
        wanted: dict[int, tuple[str, set[Form]]] = {}
        raws: list[Raw] = []
        for number, raw in read:
            index = indexes.get(self._group(raw))
            standing = index.standing_in("\n".join(_said(raw))) if index else set()
            if standing:
                wanted[number] = (sha256_text(canonical_json(sorted(standing)))[:16], standing)
                raws.append((number, raw))
        return wanted, raws

    def _write_settled(self, folder: Path, patches: dict[int, dict[str, Any]], known: DeviceValues) -> None:
        meta = json.loads((self.path / _META).read_text(encoding="utf-8"))
        kept = dict(zip(meta["kept"], read_jsonl(self.path / EVENTS), strict=True))
        left_out = {int(row["where"]): row for row in read_jsonl(self.path / QUARANTINE)}
        leaked = {int(number): count for number, count in meta["leaked"].items()}
        for number, patch in patches.items():
            for records in (kept, left_out):
                records.pop(number, None)
            (kept if patch["kept"] else left_out)[number] = patch["record"]
            leaked[number] = patch["leaked"]
        as_built = not patches
        searches: dict[str, LeakSearch] = {}
        for number, record in list(kept.items()):
            group = record["group"]
            if group not in searches:
                searches[group] = LeakSearch(known.of(group))
            count = searches[group].count(record)
            if count:
                as_built = False
                del kept[number]
                leaked[number] = count
                left_out[number] = Quarantined(
                    stage="scrub",
                    reason="a found value survived",
                    detail=f"{count} values, seen by the leak audit",
                    event_id=record["event_id"],
                ).model_dump(mode="json")
        if as_built:
            place(self.path / EVENTS, folder / EVENTS)
        else:
            write_jsonl(folder / EVENTS, (kept[number] for number in sorted(kept)))
        rows = ({**left_out[number], "where": str(number)} for number in sorted(left_out))
        write_jsonl(folder / QUARANTINE, rows)
        write_jsonl(folder / _PATCHES, (patches[number] for number in sorted(patches)))
        found: Counter[str] = Counter()
        for record in kept.values():
            found.update(record["found"])
        reasons = Counter(row["reason"] for row in left_out.values())
        write_json(
            folder / STATS, {"kept": len(kept), "left_out": reasons, "found": found, "caught": sum(leaked.values())}
        )


def _write_records(folder: Path, records: "dict[int, ScrubbedEvent | Quarantined]") -> None:
    write_jsonl(folder / EVENTS, (r for r in records.values() if isinstance(r, ScrubbedEvent)))
    left_out = ((n, r) for n, r in records.items() if isinstance(r, Quarantined))
    write_jsonl(folder / QUARANTINE, (r.model_copy(update={"where": str(n)}) for n, r in left_out))


def _leaked(numbers: list[int], done: Scrubbed) -> dict[str, int]:
    return {str(numbers[place]): count for place, count in sorted(done.leaked.items())}


def _said(raw: dict[str, Any]) -> list[str]:
    """All that was said in a raw event, valid or not, as it is searched."""
    said = leaves(cleaned([raw.get("messages"), raw.get("feedback")]))
    return [leaf for text in said for leaf in (text, *leaves(structured(text)))]


def _fingerprints(done: Scrubbed, scrubber: Scrubber) -> list[dict[str, Any]]:
    """Keyed fingerprints of the values found, without the values, sorted and merged."""
    rows = [
        {
            "fingerprint": scrubber.pseudonyms.fingerprint(form),
            "type": value.kind,
            "tokens": len(value.text.split()),
            "length": len(form),
            "distinctive": is_distinctive(value.kind, value.text) and len(form) >= min(7, len(compact(value.text))),
            "count": count,
        }
        for (value, region), count in done.values.items()
        for form in fingerprint_forms(value.kind, value.text, region)
    ]
    return list(merged(sorted(rows, key=fingerprint_key)))


def fingerprint_key(row: dict[str, Any]) -> tuple[str, str]:
    """What rows of `found.jsonl` are sorted by."""
    return row["fingerprint"], row["type"]


def merged(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Add up counts of sorted rows; a value is distinctive only if every spelling of it is."""
    for _, group in groupby(rows, key=fingerprint_key):
        first, *others = group
        for row in others:
            first["count"] += row["count"]
            first["tokens"] = max(first["tokens"], row["tokens"])
            first["distinctive"] = first["distinctive"] and row["distinctive"]
        yield first
