"""One sync of a device: verify, choose, download, prove, swap.

What runs is changed by one atomic replacement of `state.json`, after everything was checked; an error at any point, or
a process killed there, leaves the device with what it had. The one exception is deliberate: an adapter whose approval
was taken back stops running even if the rest of the sync fails.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import TypeAdapter, ValidationError

from pocketloop.contracts.errors import ConfigError, DeviceError
from pocketloop.contracts.parts import Name
from pocketloop.device.channel import Channel, slot_of
from pocketloop.device.config import DeviceConfig, Probing, SyncResult
from pocketloop.device.fetching import Fetcher
from pocketloop.device.store import Attempt, Store
from pocketloop.device.updater import VerifiedRepository

__all__ = ["DeviceConfig", "Probing", "SyncResult", "sync", "sync_all"]


def sync(device: DeviceConfig, adapter: str) -> SyncResult:
    """Bring one adapter of the device to what its channel serves.

    Raises:
        DeviceError: nothing new was installed; the class says why (docs/device-protocol.md lists them).
    """
    (outcome,) = sync_all(device, [adapter]).values()
    if isinstance(outcome, DeviceError):
        raise outcome
    return outcome


def sync_all(device: DeviceConfig, adapters: list[str]) -> dict[str, SyncResult | DeviceError]:
    """Sync several adapters with metadata that is verified once; each ends with its own result or error.

    Requests and bytes of the shared metadata are counted to the first adapter.

    Raises:
        DeviceBusy: another process is syncing this device.
        ConfigError: a name that no adapter can have.
    """
    for adapter in adapters:
        _check_name(adapter)
    store = Store(device.folder)
    outcomes: dict[str, SyncResult | DeviceError] = {}
    with store.syncing(), _fetcher(device) as fetcher:
        repository: VerifiedRepository | DeviceError | None = None
        for adapter in adapters:
            before = fetcher.requests, fetcher.received
            _match_base(store, adapter, device.base_digest)
            repository = repository or _verify(device, store, fetcher)
            outcome: SyncResult | DeviceError
            if isinstance(repository, DeviceError):
                outcome = repository
            else:
                try:
                    done = Channel(device, store, fetcher, repository, adapter).bring_up_to_date()
                    used = {"requests": fetcher.requests - before[0], "bytes": fetcher.received - before[1]}
                    outcome = done.model_copy(update=used)
                except DeviceError as error:
                    outcome = error
            outcomes[adapter] = outcome
            _record(store, device, adapter, outcome)
        store.tidy()
    return outcomes


def _check_name(adapter: str) -> None:
    try:
        TypeAdapter(Name).validate_python(adapter)
    except ValidationError:
        raise ConfigError(
            f"{adapter!r} cannot be the name of an adapter: expected lower case, such as functions"
        ) from None


@contextmanager
def _fetcher(device: DeviceConfig) -> Iterator[Fetcher]:
    fetcher = Fetcher(device.url, device.connect_s, device.read_s)
    try:
        yield fetcher
    finally:
        fetcher.close()


def _verify(device: DeviceConfig, store: Store, fetcher: Fetcher) -> VerifiedRepository | DeviceError:
    """Verify metadata at the device's time, which is never before the newest one it has verified at.

    A clock set back would let somebody serve expired metadata for ever; a floor under it does not.
    """
    now = max(device.clock(), store.read().newest_time)
    try:
        return VerifiedRepository(store.metadata, device.url, fetcher, device.root, now)
    except DeviceError as error:
        return error


def _match_base(store: Store, adapter: str, base_digest: str) -> None:
    """Empty the slot when the phone has another base now: its files belong to the old one."""
    slot = store.read().adapters.get(adapter)
    if slot is None or slot.base_digest == base_digest:
        return
    with store.change() as state:
        slot_of(state, adapter, base_digest)


def _record(store: Store, device: DeviceConfig, adapter: str, outcome: SyncResult | DeviceError) -> None:
    """Remember how the sync ended, for `explain`, and that metadata was valid at this time.

    No signed time is taken over: a stolen online key could name the year 3000 and make all honest metadata expired.
    """
    now = device.clock()
    with store.change() as state:
        slot = slot_of(state, adapter, device.base_digest)
        if isinstance(outcome, DeviceError):
            slot.last = Attempt(at=now, outcome=type(outcome).__name__, reason=str(outcome))
            return
        slot.last = Attempt(at=now, outcome=outcome.action, reason=outcome.reason)
        state.newest_time = max(state.newest_time, now)
