"""Reading lines of unknown origin: any size, any encoding, whole or cut off, in bounded memory."""

import gzip
import hashlib
import io
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pocketloop.contracts.errors import DataError

MAX_LINE = 1 << 20
"""Bytes of the longest line that is read into memory."""

_CHUNK = 1 << 16
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def sha256_bytes(data: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class RawLine:
    """One line without its newline; with a `problem`, what could be kept of it.

    A line that is too long, or a file in another encoding, is not held in memory: `spilled` is the file it went to.
    """

    number: int
    data: bytes
    problem: str | None = None
    detail: str = ""
    digest: str = ""
    spilled: Path | None = None


class HashingReader(io.RawIOBase):
    """Passes bytes through and knows the sha256 of all that went by."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """Always: this is a reader."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; returns the number of bytes, 0 at the end."""
        data = self._source.read(len(buffer))
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def hexdigest(self) -> str:
        """Digest of everything in the source: reads on to its end."""
        while self.read(_CHUNK):
            pass
        return self._hash.hexdigest()


@contextmanager
def open_raw(path: Path | str) -> Iterator[HashingReader]:
    """Open a file, or standard input for `-`, as a hashing reader.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    if str(path) == "-":
        yield HashingReader(sys.stdin.buffer)
        return
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {what}; give a .jsonl or .jsonl.gz file, or - for standard input")
    with open(path, "rb") as handle:
        yield HashingReader(handle)


def read_lines(raw: HashingReader, spill: Path | None = None, max_line: int = MAX_LINE) -> Iterator[RawLine]:
    """Yield the lines of `raw`, which may be gzip (told by its first bytes, not by its name).

    A line over `max_line` bytes goes to a file in the folder `spill` (nowhere when `None`) and is yielded with the
    problem `too long`. A file that starts with a UTF-16 mark is one such line with the problem `encoding`. Where
    compressed data is cut off or damaged, the lines before it are yielded, then the rest with the problem `damaged`.
    """
    buffered = io.BufferedReader(raw, _CHUNK)
    zipped = buffered.peek(2)[:2] == b"\x1f\x8b"
    stream: Any = gzip.GzipFile(fileobj=buffered) if zipped else buffered
    splitter = _Splitter(spill, max_line)
    damage = ""
    try:
        chunk = stream.read1(_CHUNK)
        if chunk[:2] in _UTF16_MARKS:
            yield _spill_all(stream, chunk, spill)
            return
        chunk = chunk.removeprefix(b"\xef\xbb\xbf")
        while chunk:
            yield from splitter.feed(chunk)
            chunk = stream.read1(_CHUNK)
    except EOFError:
        damage = "the compressed data ends early"
    except (OSError, zlib.error):
        damage = "the compressed data is damaged"
    yield from splitter.finish(damage)


class _Splitter:
    """Cuts chunks into lines, holding at most one line of `max_line` bytes."""

    def __init__(self, spill: Path | None, max_line: int) -> None:
        self._folder = spill
        self._max = max_line
        self._pending = b""
        self._overlong: _Spill | None = None
        self._number = 1

    def feed(self, chunk: bytes) -> Iterator[RawLine]:
        """Lines that end within `chunk`."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._add(piece)
            yield self._take()
        self._add(rest)

    def finish(self, damage: str) -> Iterator[RawLine]:
        """What stands after the last newline; with `damage`, a last piece that says so."""
        if self._overlong is not None:
            yield self._take()
        if damage:
            yield RawLine(self._number, self._pending, "damaged", damage)
        elif self._pending:
            yield self._take()

    def _add(self, piece: bytes) -> None:
        if self._overlong is None and len(self._pending) + len(piece) > self._max:
            self._overlong = _Spill(self._folder)
            self._overlong.write(self._pending)
            self._pending = b""
        if self._overlong is not None:
            self._overlong.write(piece)
        else:
            self._pending += piece

    def _take(self) -> RawLine:
        if self._overlong is not None:
            detail = f"{self._overlong.size} bytes, at most {self._max} are read"
            line = self._overlong.close(self._number, "too long", detail)
        else:
            line = RawLine(self._number, self._pending)
        self._overlong, self._pending = None, b""
        self._number += 1
        return line


def _spill_all(stream: Any, chunk: bytes, folder: Path | None) -> RawLine:
    rest = _Spill(folder)
    detail = "the file is UTF-16; convert it: iconv -f utf-16 -t utf-8"
    try:
        while chunk:
            rest.write(chunk)
            chunk = stream.read1(_CHUNK)
    except (EOFError, OSError, zlib.error):
        detail += "; its compressed data is damaged too"
    return rest.close(1, "encoding", detail)


class _Spill:
    """A file that takes a line too large for memory, named by its digest once it is whole."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._hash = hashlib.sha256()
        self.size = 0
        self._out: BinaryIO | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            handle, self._name = tempfile.mkstemp(suffix=".part", dir=folder)  # mode 0600
            self._out = os.fdopen(handle, "wb")

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        if self._out is not None:
            self._out.write(data)

    def close(self, number: int, problem: str, detail: str) -> RawLine:
        digest = self._hash.hexdigest()
        path = None
        if self._out is not None and self._folder is not None:
            self._out.flush()
            os.fsync(self._out.fileno())
            self._out.close()
            path = self._folder / f"{digest}.line"
            Path(self._name).replace(path)
        return RawLine(number, b"", problem, detail, digest, path)
