"""Starting with the active file, and going back when it keeps the app from starting.

An app calls `started` before it loads an adapter and `healthy` once it has answered with it. The third start in a row
that never became healthy takes the previous file back.
"""

from dataclasses import dataclass
from pathlib import Path

from pocketloop.contracts.delivery import Companion
from pocketloop.contracts.files import sha256_file
from pocketloop.device.errors import StorageFault
from pocketloop.device.store import Installed, Slot, Store

MAX_STARTS = 3
"""The start without a healthy one before it at which the device goes back."""


@dataclass(frozen=True)
class Start:
    """What to run: `path` and `companion` are `None` for the base alone; `reverted` is the digest just given up."""

    installed: Installed | None
    path: Path | None
    companion: Companion | None
    reverted: str | None = None


def started(folder: Path, adapter: str, base_digest: str) -> Start:
    """Count a start of the app with this adapter, and give what it is to run.

    Raises:
        DeviceBusy, StorageFault, LowDisk: the state cannot be read or written.
    """
    store = Store(folder)
    reverted = None
    with store.change() as state:
        slot = state.adapters.get(adapter)
        if slot is None or slot.base_digest != base_digest:  # made for the base that the phone had before
            return Start(None, None, None)
        slot.starts += 1
        if slot.active and slot.starts >= MAX_STARTS:
            reverted = slot.active.digest
            _give_up(store, slot, f"{slot.starts - 1} starts in a row did not become healthy")
        if slot.active and not _is_here(store, slot.active):
            slot.active = None  # the next sync fetches it again; until then the base answers
        active = slot.active
    if active is None:
        return Start(None, None, None, reverted)
    return Start(active, store.adapter_path(active.digest), store.companion(active.digest), reverted)


def healthy(folder: Path, adapter: str) -> None:
    """The app answered with the file that it started with: forget the starts."""
    with Store(folder).change() as state:
        if adapter in state.adapters:
            state.adapters[adapter].starts = 0


def take_reverts(folder: Path, adapter: str) -> dict[str, int]:
    """How often the device gave each file up by itself since this was last asked, by digest, for telemetry."""
    with Store(folder).change() as state:
        slot = state.adapters.get(adapter)
        if slot is None:
            return {}
        counts, slot.reverts = slot.reverts, {}
        return counts


def _give_up(store: Store, slot: Slot, why: str) -> None:
    """Back to the previous file; the active one is not tried again here, unless it was only damaged."""
    assert slot.active is not None
    path = store.adapter_path(slot.active.digest)
    slot.count_revert(slot.active.digest)
    if path.is_file() and sha256_file(path) != slot.active.digest:
        path.unlink()
    else:
        slot.mark_bad(slot.active.digest, why)
    slot.active, slot.previous, slot.starts = slot.previous, None, 1


def _is_here(store: Store, installed: Installed) -> bool:
    try:
        store.companion(installed.digest)
    except StorageFault:
        return False
    return store.adapter_path(installed.digest).is_file()
