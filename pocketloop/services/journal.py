"""A journal on the local disk: what was appended is there, whole, after a kill or a power cut.

It is a folder of segments, files of lines named by the moment when they were opened. Lines are appended to one segment
and flushed to disk before `append` returns; from time to time the owner closes it, works on its lines and removes it.
A killed process leaves segments behind, and the next owner finds them.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from pocketloop.contracts.errors import DataError

_STAMP = "%Y%m%dT%H%M%S.%fZ"


class Segment:
    """A file of the journal, and when it was opened."""

    def __init__(self, path: Path, opened: datetime) -> None:
        self.path = path
        self.opened = opened

    @property
    def name(self) -> str:
        """The moment as it stands in the file's name: letters, digits and a dot."""
        return self.path.stem

    def lines(self) -> Iterator[bytes]:
        """The acknowledged lines, without newlines; a torn last one was never acknowledged."""
        with open(self.path, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                yield line[:-1]


class Journal:
    """The segments in `folder`, which belong to one process at a time.

    Raises:
        DataError: another process has the folder open.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._owner = FileLock(folder / ".lock", thread_local=False)  # another thread may let go of it
        try:
            self._owner.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"{folder.parent}: another collector writes here; stop it, or give another folder"
            ) from None
        self.left = [
            Segment(path, datetime.strptime(path.stem, _STAMP).replace(tzinfo=UTC))
            for path in sorted(folder.glob("*.jsonl"))
        ]
        """Segments of an owner that was killed, oldest first."""
        self._open: _Writer | None = None

    @property
    def segment(self) -> Segment | None:
        """The segment that is appended to, if one is open."""
        return self._open.segment if self._open else None

    @property
    def size(self) -> int:
        """Bytes in the segment that is appended to."""
        return self._open.length if self._open else 0

    def append(self, lines: bytes, now: datetime) -> None:
        """Append whole lines, or nothing; they are on disk when this returns.

        Raises:
            OSError: the disk is full, or failing. Close the segment: its last line may be half a line now.
        """
        if self._open is None:
            self._open = _Writer(self._folder, now.astimezone(UTC))
        self._open.append(lines)

    def close_segment(self) -> Segment | None:
        """Append no more to the open segment, and give it; its owner removes it when its lines are elsewhere."""
        if self._open is None:
            return None
        self._open.close()
        segment, self._open = self._open.segment, None
        return segment

    def release(self) -> None:
        """Let go of the folder."""
        self.close_segment()
        self._owner.release()


class _Writer:
    def __init__(self, folder: Path, opened: datetime) -> None:
        while (path := folder / f"{opened.strftime(_STAMP)}.jsonl").exists():
            opened += timedelta(microseconds=1)
        self.segment = Segment(path, opened)
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by `close`
        self.length = 0
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # the file's name is on disk too
        finally:
            os.close(handle)

    def append(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) or 0 :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self.length)
            raise
        self.length += len(data)

    def close(self) -> None:
        self._file.close()
