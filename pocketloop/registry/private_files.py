"""Secrets on disk: each in a file of its own (0600) in a folder of its own (0700)."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def keep_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in `path`; where there is none yet, `make` gives one and it is kept from now on.

    Of two processes that start at once one wins, and both use its secret.
    """
    if path.is_file():
        return path.read_bytes()
    _private_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)  # 0600 by itself
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(make())
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(temporary)  # unlike a rename, this never replaces what another process put there
    finally:
        temporary.unlink(missing_ok=True)
    return path.read_bytes()


def _private_folder(folder: Path) -> None:
    if not folder.is_dir():
        _private_folder(folder.parent)  # `parents=True` would leave those open to everybody
        folder.mkdir(mode=0o700, exist_ok=True)
