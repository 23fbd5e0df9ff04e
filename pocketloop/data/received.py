"""Where phones' events arrive: a local folder, or whatever fsspec can reach (`s3://bucket/prefix`, `memory://events`).

Events lie by the day on which they came, as canonical JSON lines in gzip parts that are never changed:
`day=2026-11-21/part-NAME.jsonl.gz`. A part's name holds a digest of its lines, so that a writer who was killed and
writes again makes the same file, not a second one. Beside them `tombstones/DIGEST.json` says, without naming it, that
a device is forgotten: its events are no longer taken in, by anybody who reads or writes here.

A part appears whole or not at all: a local one through a rename, one of an object store because such a store shows an
object only once its upload has finished.
"""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from pocketloop.contracts.collecting import CollectorConfig
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import atomic_file, canonical_json, sha256_text
from pocketloop.contracts.home import Home

_PART = re.compile(r"day=(\d{4}-\d{2}-\d{2})/part-[\w.-]+\.jsonl\.gz")
_TOMBSTONE = re.compile(r"tombstones/([0-9a-f]{64})\.json")
_HINT = re.compile(r"[\w.]*")
_GZIP_LEVEL = 3


def device_digest(device_id: str) -> str:
    """How a forgotten device is written down: hex sha256 of its id."""
    return sha256_text(device_id)


class Received:
    """The landing zone at `address`.

    Raises:
        DataError: nothing can open such an address; in every method, the storage cannot be read or written.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address
        try:
            # Listings are never cached: a collector may have written meanwhile.
            self._fs, root = fsspec.url_to_fs(address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise DataError(f"store {address!r} (configs/collector.yaml) cannot be opened: {error}") from None
        self._root = root.rstrip("/")
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        self.local = Path(self._root) if "file" in protocols else None
        """The folder, if it is one of this machine; it is the owner's alone."""
        self._errors: tuple[type[Exception], ...] = (OSError,)
        if "s3" in protocols:
            from botocore.exceptions import BotoCoreError

            self._errors = (OSError, BotoCoreError)

    @classmethod
    def of(cls, config: CollectorConfig, home: Home) -> "Received":
        """The landing zone that `configs/collector.yaml` names, or else the home's."""
        return cls(config.store or str(home.received))

    def write(self, day: date, lines: Sequence[bytes], hint: str = "") -> str:
        """Add a part with these lines (canonical JSON without newlines), on disk when this returns.

        Args:
            day: of arrival.
            hint: begins the part's name; the parts of a day are read in the order of their names. The same hint and
                lines give the same part.

        Returns:
            The part's name, `day=.../part-....jsonl.gz`.
        """
        if not _HINT.fullmatch(hint):
            raise ValueError(f"hint {hint!r}: letters, digits, dots and underscores only")
        content = b"".join(line + b"\n" for line in lines)
        stem = "-".join(filter(None, (hint, hashlib.sha256(content).hexdigest()[:20])))
        name = f"day={day.isoformat()}/part-{stem}.jsonl.gz"
        self._put(name, gzip.compress(content, _GZIP_LEVEL, mtime=0))
        return name

    def parts(self, after: Container[str] = ()) -> list[str]:
        """Names of all parts but those in `after`, oldest day first."""
        return [name for name in self._names() if _PART.fullmatch(name) and name not in after]

    def read(self, part: str) -> Iterator[bytes]:
        """The lines of a part, without newlines; holds one line at a time.

        Raises:
            DataError: there is no such part, or it is damaged (the lines before the damage are given).
        """
        with self._explained("read", part), self._fs.open(self._path(part), "rb") as raw:
            try:
                with gzip.GzipFile(fileobj=raw) as lines:
                    for line in lines:
                        yield line.rstrip(b"\n")
            except (EOFError, gzip.BadGzipFile, zlib.error):
                raise DataError(f"{self.address}: {part} is damaged: restore it from a backup, or delete it") from None

    def remove_device(self, device_id: str) -> int:
        """Remove a device's events from all parts; how many there were.

        A part that held some is written anew under another name, then removed: whoever reads meanwhile finds an
        event twice rather than not at all.
        """
        needle = device_id.encode("utf-8", "surrogatepass")

        def belongs(line: bytes) -> bool:
            # An id that is not written out in the line can only be there with escapes.
            return (needle in line or b"\\" in line) and _device_of(line) == device_id

        return sum(self._rewrite(part, belongs) for part in self.parts())

    def remove_forgotten(self, parts: Sequence[str], forgotten: Container[str]) -> int:
        """Remove from some parts the events of all devices whose digests are in `forgotten`; how many there were."""
        return sum(
            self._rewrite(part, lambda line: device_digest(_device_of(line) or "") in forgotten) for part in parts
        )

    def drop_before(self, day: date) -> int:
        """Remove the parts of all days before `day`; how many there were."""
        old = [part for part in self.parts() if part < f"day={day.isoformat()}"]
        for part in old:
            self._delete(part)
        return len(old)

    def tombstones(self) -> set[str]:
        """Digests of all forgotten devices."""
        found = (_TOMBSTONE.fullmatch(name) for name in self._names("tombstones"))
        return {match[1] for match in found if match}

    def add_tombstone(self, digest: str, moment: datetime) -> None:
        """Note that the device with this digest is forgotten since `moment` (aware); the first moment stays."""
        name = f"tombstones/{digest}.json"
        if not _TOMBSTONE.fullmatch(name):
            raise ValueError("a tombstone carries the hex sha256 of a device id")
        if digest not in self.tombstones():
            forgotten = moment.astimezone(UTC).isoformat(timespec="seconds")
            self._put(name, (canonical_json({"device": digest, "forgotten": forgotten}) + "\n").encode())

    def _rewrite(self, part: str, unwanted: Callable[[bytes], bool]) -> int:
        kept: list[bytes] = []
        removed = 0
        for line in self.read(part):
            if unwanted(line):
                removed += 1
            else:
                kept.append(line)
        if removed:
            folder, _, name = part.partition("/")
            hint = name.removeprefix("part-").removesuffix(".jsonl.gz").rpartition("-")[0]
            if kept:
                self.write(date.fromisoformat(folder.removeprefix("day=")), kept, hint)
            self._delete(part)
        return removed

    def _put(self, name: str, data: bytes) -> None:
        with self._explained("write", name):
            if self.local is None:
                self._fs.pipe_file(self._path(name), data)
                return
            path = self.local / name
            self.local.mkdir(parents=True, exist_ok=True)
            self.local.chmod(0o700)
            with atomic_file(path) as temporary:
                temporary.write_bytes(data)
            for folder in (path.parent, self.local):
                _sync_folder(folder)  # the names are on disk too

    def _delete(self, name: str) -> None:
        with self._explained("delete", name):
            self._fs.rm_file(self._path(name))

    def _names(self, under: str = "") -> list[str]:
        with self._explained("list", under or "parts"):
            try:
                found = self._fs.find(f"{self._root}/{under}".rstrip("/"))
            except FileNotFoundError:
                return []
        return sorted(path[len(self._root) :].lstrip("/") for path in found)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise DataError(f"{self.address}: cannot {verb} {name}: {error}") from error


def _device_of(line: bytes) -> str | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None  # not a line of ours
    device = value.get("device_id") if isinstance(value, dict) else None
    return device if isinstance(device, str) else None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
