"""What every test of an attack asserts: it is refused by name, costs nothing, and ends with the attacker."""

import pytest
from world import World, content

from pocketloop.device import errors
from pocketloop.device.store import Store
from pocketloop.device.sync import DeviceConfig, sync

EVIL = content("evil")


def runs(device: DeviceConfig) -> bytes | None:
    store = Store(device.folder)
    active = store.read().adapters["functions"].active
    return store.adapter_path(active.digest).read_bytes() if active else None


def installed(world: World) -> DeviceConfig:
    device = world.device()
    assert sync(device, "functions").installed == world.a
    return device


def refused(device: DeviceConfig, error: type[errors.DeviceError]) -> str:
    """The sync fails by that name, and the device runs what it ran."""
    with pytest.raises(error) as caught:
        sync(device, "functions")
    assert type(caught.value) is error
    assert runs(device) == content("first")
    assert {path.suffix for path in (device.folder / "files").iterdir()} <= {".gguf", ".json", ".part", ".etag"}
    assert [path.read_bytes() for path in (device.folder / "files").glob("*.gguf")] == [content("first")]
    return str(caught.value)


def recovers(world: World, device: DeviceConfig, digest: str) -> None:
    """The next honest sync works."""
    world.serve(digest)
    assert sync(device, "functions").installed == digest
