"""Events as phones post them, for the tests of the log."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pocketloop.contracts.files import canonical_json
from pocketloop.data.event_log import ImportReport, import_file
from pocketloop.data.received import Received

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def event(number: int, device: str = "d1", **changes: Any) -> dict[str, Any]:
    """One event; what is said names its number, so that its words can be searched for."""
    said = f"call Anna Kowalski number {number} of {device}"
    made = {
        "event_id": f"{device}-e{number}",
        "device_id": device,
        "ts": "2026-11-01T10:00:00Z",
        "adapter": {"skill": "assistant"},
        "consent": {"training": True, "policy": "2026-01"},
        "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "Done"}],
    }
    return made | changes


def lines(*records: Any) -> bytes:
    """Events, or bytes as they are, one a line."""
    return b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)


def put(log: Path, *records: Any, now: datetime = NOW) -> ImportReport:
    """Import these lines into the log in the folder `log`."""
    path = log.parent / "in.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lines(*records))
    report = import_file(path, log, now)
    path.unlink()
    return report


def post(received: Received, *records: Any, day: datetime = NOW) -> str:
    """Write these events into the landing zone as one part."""
    return received.write(day.date(), [canonical_json(record).encode() for record in records])


def holding(root: Path, *needles: str) -> list[str]:
    """Files under `root` in whose bytes one of the needles stands, gzip opened."""
    import gzip

    found = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content += gzip.decompress(content)
        if any(needle.encode() in content for needle in needles):
            found.append(str(path.relative_to(root)))
    return found
