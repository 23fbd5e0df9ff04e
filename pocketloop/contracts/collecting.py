"""Where phones' events arrive, how long they are kept, and on how many processes they are worked."""

from collections.abc import Iterator
from typing import Any, Literal, Protocol

from pydantic import Field

from pocketloop.contracts.parts import Part


class CollectorLimits(Part):
    """Most that one post may hold, and how much may wait for the disk before phones are told to come back (429)."""

    line_bytes: int = Field(default=262_144, ge=1)
    batch_lines: int = Field(default=5_000, ge=1)
    body_bytes: int = Field(default=4_194_304, ge=1)
    """Bytes of a post as it is sent."""
    decompressed_bytes: int = Field(default=33_554_432, ge=1)
    waiting_bytes: int = Field(default=134_217_728, ge=1)
    retry_after_s: int = Field(default=5, ge=1)


class CollectorConfig(Part):
    """`configs/collector.yaml`.

    `store` is a folder or any fsspec address (`s3://bucket/prefix`); empty means the home's `received/`. Raw events
    older than `retention_days` are removed from the store and from the log.
    """

    store: str = ""
    limits: CollectorLimits = CollectorLimits()
    flush_seconds: float = Field(default=60, gt=0)
    flush_events: int = Field(default=20_000, ge=1)
    retention_days: float = Field(default=180, gt=0)


class ComputeConfig(Part):
    """`configs/compute.yaml`: where blocks of the curation run. It never changes a result."""

    executor: Literal["local", "ray"] = "local"
    workers: int = Field(default=2, ge=1)
    """Processes here, or tasks at once on the cluster."""
    ray_address: str = ""
    """Of a running cluster; empty starts one on this machine."""


class ShardSource(Protocol):
    """Raw events in shards with names; a shard's digest tells whether it changed."""

    def names(self) -> list[str]:
        """Names of all shards, in order."""
        ...

    def digest(self, name: str) -> str:
        """Hex digest of what `read` gives for this shard."""
        ...

    def read(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The shard's events with their numbers in the log."""
        ...
