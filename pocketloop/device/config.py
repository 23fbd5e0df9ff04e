"""What a device knows before a sync, and what it says after one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.delivery import RUNTIME, Arm, Companion

Action = Literal["installed", "unchanged", "reverted", "removed", "kept"]
Probing = Callable[[Path, Companion], int]
"""Runs a companion's golden probes on an adapter file; gives the number that failed."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class DeviceConfig:
    """What an app knows before it ever syncs.

    Attributes:
        folder: where this client keeps its state.
        repository: `http(s)://...` or a folder of this machine.
        device_id: opaque; decides the canary bucket, and is never sent to the repository.
        base_digest: sha256 of the base file on this device.
        root: root metadata as shipped with the app.
        probe: runs golden probes before a swap; `None` swaps without them (a simulation).
        reserve: bytes that must stay free on the disk.
        clock: gives an aware time.
    """

    folder: Path
    repository: str
    device_id: str
    base_digest: str
    root: bytes = field(repr=False)
    runtime: int = RUNTIME
    probe: Probing | None = None
    connect_s: float = 5
    read_s: float = 20
    reserve: int = 32 << 20
    clock: Callable[[], datetime] = _now

    @property
    def url(self) -> str:
        """The repository's address as a URL."""
        return self.repository if "://" in self.repository else Path(self.repository).resolve().as_uri()


class SyncResult(BaseModel):
    """What a sync did for one adapter; digests are sha256 of adapter files, `None` is the base alone."""

    model_config = ConfigDict(frozen=True)

    adapter: str
    action: Action
    reason: str
    arm: Arm
    generation: int
    wanted: str | None
    installed: str | None
    reverts: int = 0
    """Files that failed here during this sync, for telemetry."""
    requests: int = 0
    bytes: int = 0
