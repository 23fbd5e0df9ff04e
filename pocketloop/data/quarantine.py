"""Lines that the event log refused: their bytes in files that only the owner may read, their reasons in a table.

The refused lines of a batch share a file, `DIGEST.lines`, named by its content, so that a repeated import writes the
same file again, not a second. A line too large for memory, or a file in another encoding, is one file, `DIGEST.line`.
"""

import json
import mmap
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pocketloop.contracts.files import atomic_file
from pocketloop.data.lines import RawLine, sha256_bytes
from pocketloop.data.parsing import Refused

_DEVICE = re.compile(rb'"device_id"\s*:\s*("(?:[^"\\]|\\.)*")')


class Kept(NamedTuple):
    """A refused line of a batch, and why."""

    line: RawLine
    refusal: Refused


def folder_of(log: Path) -> Path:
    """Where the refused bytes of the log in the folder `log` lie."""
    return log / "quarantine"


def keep(connection: sqlite3.Connection, log: Path, name: str, bad: list[Kept], now: datetime) -> None:
    """Keep the refused lines of a batch of the file `name`: their bytes first, then, with the transaction, the rows."""
    fresh: dict[tuple[str, str], Kept] = {}
    for line, refusal in bad:
        digest = line.digest or sha256_bytes(line.data)
        known = connection.execute("SELECT 1 FROM quarantine WHERE digest = ? AND reason = ?", (digest, refusal.reason))
        if known.fetchone() is None:
            fresh.setdefault((digest, refusal.reason), Kept(line, refusal))
    content = b"".join(line.data + b"\n" for line, _ in fresh.values() if line.spilled is None)
    batch_file = ""
    if content:
        batch_file = f"{sha256_bytes(content)}.lines"
        _write_private(folder_of(log) / batch_file, [content])
    arrived = now.astimezone(UTC).isoformat(timespec="seconds")
    connection.executemany(
        "INSERT INTO quarantine (digest, reason, detail, place, event_id, file, arrived) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                digest,
                refusal.reason,
                refusal.detail,
                f"{name}:{line.number}",
                refusal.event_id,
                line.spilled.name if line.spilled else batch_file,
                arrived,
            )
            for (digest, _), (line, refusal) in fresh.items()
        ],
    )


def claimed_device(line: RawLine) -> str | None:
    """The device that a refused line names, however broken the rest of it is; `None` if it cannot be told."""
    if line.spilled is None:
        return _device_in(line.data)
    if line.spilled.stat().st_size == 0:
        return None
    with open(line.spilled, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _named(_DEVICE.search(content))


def remove_device(connection: sqlite3.Connection, log: Path, device_id: str, dry_run: bool = False) -> int:
    """Erase the refused lines of a device, and every line in which its id stands but no other device's; how many.

    Every file of the folder is read, those that no row knows of included: a killed import may have left them.
    """
    removed = 0
    for path in sorted(folder_of(log).glob("*")):
        if path.suffix == ".lines":
            removed += _remove_lines(connection, path, device_id, dry_run)
        elif _mentions(path, device_id):
            removed += 1
            if not dry_run:
                connection.execute("DELETE FROM quarantine WHERE file = ?", (path.name,))
                path.unlink()
    return removed


def drop_before(connection: sqlite3.Connection, log: Path, oldest: datetime, dry_run: bool = False) -> int:
    """Erase what came in before `oldest` (aware); how many lines. Files that no row knows of go by their own age."""
    moment = oldest.astimezone(UTC).isoformat(timespec="seconds")
    expired = [file for (file,) in connection.execute("SELECT file FROM quarantine WHERE arrived < ?", (moment,))]
    if dry_run:
        return len(expired)
    connection.execute("DELETE FROM quarantine WHERE arrived < ?", (moment,))
    known = {file for (file,) in connection.execute("SELECT DISTINCT file FROM quarantine")}
    for path in folder_of(log).glob("*"):
        if path.name not in known and (path.name in expired or path.stat().st_mtime < oldest.timestamp()):
            path.unlink()
    return len(expired)


def _remove_lines(connection: sqlite3.Connection, path: Path, device_id: str, dry_run: bool) -> int:
    """Write a batch's file anew without a device's lines; a kill in between leaves the old file, to be read again."""
    gone = [sha256_bytes(line) for line in _lines(path) if _belongs(line, device_id)]
    if not gone or dry_run:
        return len(gone)
    left = [line + b"\n" for line in _lines(path) if not _belongs(line, device_id)]
    name = f"{sha256_bytes(b''.join(left))}.lines" if left else ""
    if left:
        _write_private(path.with_name(name), left)
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("DELETE FROM quarantine WHERE digest = ?", [(digest,) for digest in gone])
    connection.execute("UPDATE quarantine SET file = ? WHERE file = ?", (name, path.name))
    connection.execute("COMMIT")
    path.unlink()
    return len(gone)


def _belongs(line: bytes, device_id: str) -> bool:
    device = _device_in(line)
    return device == device_id if device is not None else any(form in line for form in _forms(device_id))


def _device_in(line: bytes) -> str | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return _named(_DEVICE.search(line))
    device = value.get("device_id") if isinstance(value, dict) else None
    return device if isinstance(device, str) else None


def _named(found: re.Match[bytes] | None) -> str | None:
    try:
        return str(json.loads(found[1])) if found else None
    except ValueError:
        return None


def _mentions(path: Path, device_id: str) -> bool:
    if path.stat().st_size == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(form) >= 0 for form in _forms(device_id))


def _forms(device_id: str) -> set[bytes]:
    """An id as it may stand in a file whose encoding nobody knows."""
    encodings = ("utf-8", "utf-16-le", "utf-16-be")
    return {device_id.encode(name, "surrogatepass") for name in encodings} | {json.dumps(device_id)[1:-1].encode()}


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")


def _write_private(path: Path, pieces: list[bytes]) -> None:
    with atomic_file(path) as temporary, open(temporary, "wb") as out:
        out.writelines(pieces)
    path.chmod(0o600)
