"""Where the published files lie: a local folder, or whatever fsspec can reach (`s3://bucket/prefix`, `memory://cdn`).

Two promises are all that publishing needs. A file appears whole or not at all: a local one through a rename, one of an
object store because such a store shows an object only once its upload has finished. And each file says how long it
may be cached: `timestamp.json` hardly, everything else for ever, because its name is never used for other bytes.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import atomic_file

TIMESTAMP = "metadata/timestamp.json"
"""The only file that is ever replaced."""
CACHE_SECONDS = 10
"""How long a proxy may keep `timestamp.json`, or the answer that a file is not there."""
_IMMUTABLE = "public, max-age=31536000, immutable"
_TYPES = {".json": "application/json", ".gguf": "application/octet-stream"}


def cache_control(name: str) -> str:
    """The `Cache-Control` header that belongs to a published file."""
    return f"public, max-age={CACHE_SECONDS}" if name == TIMESTAMP else _IMMUTABLE


class Storage:
    """Files by name (`metadata/3.root.json`) under one address."""

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        try:
            # Listings are never cached: another process may have published meanwhile.
            self._fs, root = fsspec.url_to_fs(self.address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise DeliveryError(
                f"repository {self.address!r} (configs/delivery.yaml) cannot be opened: {error}"
            ) from None
        self._root = root.rstrip("/")
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        self.local = Path(self._root) if "file" in protocols else None
        """The folder, if it is one of this machine."""
        self._s3 = "s3" in protocols
        self._errors: tuple[type[Exception], ...] = (OSError,)
        if self._s3:
            from botocore.exceptions import BotoCoreError

            self._errors = (OSError, BotoCoreError)

    def get(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: there is none of this name.
            DeliveryError: the storage cannot be read.
        """
        with self._explained("read", name):
            return bytes(self._fs.cat_file(self._path(name)))

    def size(self, name: str) -> int | None:
        """Bytes of a file; `None` when there is none of this name."""
        try:
            with self._explained("read", name):
                return int(self._fs.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self.size(name) is not None

    def put(self, name: str, data: bytes) -> None:
        """Write a file: it is there whole, or not at all."""
        if self.local is not None:
            with self._explained("write", name), atomic_file(self.local / name) as temporary:
                temporary.write_bytes(data)
            return
        with self._explained("write", name):
            self._fs.pipe_file(self._path(name), data, **self._headers(name))

    def put_file(self, name: str, source: Path) -> None:
        """Publish a file's bytes. A local repository shares them with `source`, which must not be written to again."""
        if self.local is None:
            with self._explained("write", name):
                self._fs.put_file(str(source), self._path(name), **self._headers(name))
            return
        with self._explained("write", name), atomic_file(self.local / name) as temporary:
            temporary.unlink()
            try:
                os.link(source, temporary)
            except OSError:  # another file system
                shutil.copyfile(source, temporary)

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError), self._explained("delete", name):
            self._fs.rm_file(self._path(name))

    def names(self) -> list[str]:
        """The names of all files, sorted; those that a killed writer left unfinished are not among them."""
        try:
            found = self._fs.find(self._root)
        except FileNotFoundError:
            return []
        names = (path[len(self._root) :].lstrip("/") for path in found)
        return sorted(name for name in names if not name.rpartition("/")[2].startswith("."))

    @contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            if isinstance(error, FileNotFoundError) and verb != "write":
                raise
            raise DeliveryError(f"{self.address}: cannot {verb} {name}: {error}") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _headers(self, name: str) -> dict[str, Any]:
        if not self._s3:
            return {}
        kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
        return {"CacheControl": cache_control(name), "ContentType": kind}
