"""What stages keep of a shard, so that a night works on new shards alone.

A cache is a private folder of entries. An entry is a folder, named by everything that its files depend on; it holds
scrubbed or raw text, so its seal says whose records it was made of (by pseudonym), beside the digest of each file. What
is damaged is no entry; what nobody has used for a month goes.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pocketloop.contracts.files import are_whole, atomic_dir, atomic_file, canonical_json, sha256_file, sha256_text

_SEAL = "seal.json"
_UNUSED_DAYS = 30


@cache
def code_digest() -> str:
    """Digest of this library's code: what every kept result depends on."""
    root = Path(__file__).parents[1]
    paths = sorted(root.rglob("*.py"))
    return sha256_text("\n".join(f"{path.relative_to(root).as_posix()} {sha256_file(path)}" for path in paths))


def entry_name(stage: str, shard: str, *depends: Any) -> str:
    """The name of what `stage` makes of the shard with this digest, given other things (JSON) and the code."""
    return f"{stage}-{shard[:40]}-{sha256_text(canonical_json([depends, code_digest()]))[:24]}"


@contextmanager
def kept_in(folder: Path | None) -> Iterator[Path]:
    """The cache in this folder, tidied; `None` gives one that is gone afterwards."""
    if folder is not None:
        tidy(folder)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="kept-") as scratch:
        yield Path(scratch)


def tidy(folder: Path, suffix: str = "") -> None:
    """Make a cache private; drop what has another suffix or was unused for a month, and what killed runs left."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    yesterday, oldest = time.time() - 86400, time.time() - _UNUSED_DAYS * 86400
    for path in folder.iterdir():
        half_written = path.name.startswith(".")
        other = not half_written and not path.name.endswith(suffix)
        if other or path.stat().st_mtime < (yesterday if half_written else oldest):
            erase(path)


def keep(path: Path, build: Callable[[Path], Iterable[str]]) -> Path:
    """The entry at `path`; where it is not there or damaged, `build` writes its files anew.

    `build` is given the folder, and returns the pseudonym of every device of whose records it was made.
    """
    if not is_whole(path):
        renew(path, build)
    return path


def renew(path: Path, build: Callable[[Path], Iterable[str]]) -> None:
    """Make the entry at `path` as `keep` does, in place of one that may be there."""
    with atomic_dir(path) as folder:
        seal(folder, build(folder))
    path.chmod(0o700)


def seal(folder: Path, groups: Iterable[str]) -> None:
    """Note the digest of each file in the folder, and of whose records it was made."""
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    (folder / _SEAL).write_text(canonical_json({"files": files, "groups": sorted(set(groups))}), encoding="utf-8")


def is_whole(path: Path) -> bool:
    """Whether a sealed folder is there with every file as it was; notes that it is still of use."""
    sealed = _sealed(path)
    if sealed is None or not are_whole(path, sealed["files"]):
        return False
    os.utime(path)
    return True


def place(source: Path, target: Path) -> None:
    """Link a file to a second place, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)


def forget_device(folder: Path, group: str, dry_run: bool = False) -> int:
    """Erase every entry made of records of the device with pseudonym `group`; returns how many there are.

    What a run left behind half-written goes too, so no run may be under way. What was kept of other devices in the
    same shards is made again when it is next needed.
    """
    known = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        torn = path.name.startswith(".")
        sealed = None if torn else _sealed(path)
        if sealed is not None and group not in sealed["groups"]:
            continue
        known += not torn
        if not dry_run:
            erase(path)
    return known


def erase(path: Path) -> None:
    """Remove an entry so that one half removed is never taken for whole."""
    if path.is_dir() and not path.name.startswith("."):
        path = path.rename(path.with_name(f".{path.name}.gone"))
    shutil.rmtree(path, ignore_errors=True)


def _sealed(path: Path) -> dict[str, Any] | None:
    try:
        sealed = json.loads((path / _SEAL).read_bytes())
        return {"files": dict(sealed["files"]), "groups": list(sealed["groups"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None
