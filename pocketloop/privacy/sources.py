"""Raw events in a folder of JSON lines files, as shards: for files that never went through a log."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketloop.contracts.files import sha256_file


class FolderShards:
    """A `ShardSource` over a folder: every `NAME.jsonl` in it is a shard, events are numbered by their lines.

    Lines are JSON objects; whoever wrote the folder saw to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Names of the files without their ending, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.jsonl"))

    def digest(self, name: str) -> str:
        """Sha256 of the file."""
        return sha256_file(self.folder / f"{name}.jsonl")

    def read(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The file's objects with the numbers of their lines, from 1."""
        with open(self.folder / f"{name}.jsonl", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield number, json.loads(line)
