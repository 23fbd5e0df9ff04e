"""What a test asks a phone."""

from pocketloop.device.store import Slot, Store
from pocketloop.device.sync import DeviceConfig, SyncResult, sync


def slot(device: DeviceConfig, adapter: str = "functions") -> Slot:
    return Store(device.folder).read().adapters[adapter]


def active(device: DeviceConfig, adapter: str = "functions") -> str | None:
    found = slot(device, adapter).active
    return found.digest if found else None


def files(device: DeviceConfig) -> set[str]:
    return {path.name for path in (device.folder / "files").glob("*")}


def done(device: DeviceConfig, action: str, installed: str | None) -> SyncResult:
    result = sync(device, "functions")
    assert (result.action, result.installed) == (action, installed), result.reason
    return result
