import hashlib
import json
from collections.abc import Iterator
from typing import Any


class Shards:
    """Shards of raw events in memory; events are numbered from 1 over all of them."""

    def __init__(self, **shards: list[dict[str, Any]]) -> None:
        self.shards = shards

    def names(self) -> list[str]:
        return list(self.shards)

    def digest(self, name: str) -> str:
        return hashlib.sha256(json.dumps([name, self.shards[name]]).encode()).hexdigest()

    def read(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        before = list(self.shards)[: list(self.shards).index(name)]
        first = 1 + sum(len(self.shards[other]) for other in before)
        yield from enumerate(self.shards[name], start=first)
