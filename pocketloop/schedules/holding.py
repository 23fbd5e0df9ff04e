"""One run of an adapter at a time, whoever starts it; those of different adapters run side by side."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pocketloop.contracts.errors import AdapterBusy
from pocketloop.contracts.home import Home


@contextmanager
def held(home: Home, adapter: str, what: str) -> Iterator[None]:
    """Hold the adapter while `what` (a command) runs. The kernel lets go when the process ends, however it ends.

    Raises:
        AdapterBusy: another process holds it; says which, and since when.
    """
    from filelock import FileLock, Timeout

    from pocketloop.contracts.files import write_json

    home.locks.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(home.locks / f"{adapter}.lock"), _note(home, adapter)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise AdapterBusy(f"{adapter} is taken by {_holder(note)}; wait until it is done") from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(note, {"pid": os.getpid(), "since": since, "what": what})
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _note(home: Home, adapter: str) -> Path:
    return home.locks / f"{adapter}.json"


def _holder(note: Path) -> str:
    try:
        said = json.loads(note.read_bytes())
    except (OSError, ValueError):  # it took the lock a moment ago
        return "another process"
    return f"process {said['pid']} (`{said['what']}`) since {said['since']}"
