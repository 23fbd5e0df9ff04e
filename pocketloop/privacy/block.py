"""The block that scrubs shards in several processes or on a cluster, imported only where it runs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from pocketloop.contracts.collecting import ShardSource
from pocketloop.contracts.errors import DataError, PocketloopError
from pocketloop.privacy.entries import Entry
from pocketloop.privacy.scrubber import Scrubber


class ScrubShards(PipelineStep):
    """Builds the cache entries of shards that have none; each task takes every n-th."""

    type = "🧽 - SCRUB"
    name = "shards"

    def __init__(self, source: ShardSource, names: list[str], scrubber: Scrubber, cache: Path) -> None:
        super().__init__()
        self.source = source
        self.names = names
        self.scrubber = scrubber
        self.cache = cache

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterable[Any]:
        """Scrub this task's shards. An error's own message may quote what was being read, so it goes no further."""
        for name in self.names[rank::world_size]:
            entry = Entry(self.cache, self.source.digest(name), self.scrubber)
            if not entry.exists():
                try:
                    entry.build(self.source.read(name))
                except PocketloopError:
                    raise
                except Exception as error:
                    raise DataError(f"{name}: scrubbing failed with {type(error).__name__}") from None
        yield from ()
