"""The real devices of a simulated fleet: each has a folder, which the reference client keeps up to date over HTTP."""

from functools import partial
from pathlib import Path

from pocketloop.contracts.delivery import ChannelPolicy, Companion
from pocketloop.contracts.errors import DeviceError
from pocketloop.device.fleet_model import Channel, Clock
from pocketloop.device.health import MAX_STARTS, started
from pocketloop.device.store import Store
from pocketloop.device.sync import DeviceConfig, Probing, sync

_OBSERVER = "observer"


class RealClients:
    """The reference client on many folders, on a simulated clock. One more client, the observer, reads policies.

    Args:
        folder: where the devices' folders go.
        repository: address of the signed repository.
        root: root metadata, as shipped with the app.
        channel: what they follow.
        ids: device ids of the real devices, in the fleet's order.
        probe: runs golden probes; each file's result is kept, since all devices are this machine.
        clock: the simulation's.
    """

    def __init__(
        self,
        folder: Path,
        repository: str,
        root: bytes,
        channel: Channel,
        ids: list[str],
        probe: Probing | None,
        clock: Clock,
    ) -> None:
        self.channel, self.count = channel, len(ids)
        self.requests = self.bytes = self.syncs = self.probed = 0
        self._probe, self._results = probe, dict[str, int]()
        config = partial(DeviceConfig, repository=repository, base_digest=channel.base_digest, root=root, clock=clock)
        self._devices = [
            config(folder / name, device_id=name, probe=self._probe_once if probe else None) for name in ids
        ]
        self._observer = config(folder / _OBSERVER, device_id=_OBSERVER)

    def policy(self) -> ChannelPolicy:
        """The channel's policy as the observer verifies it now.

        Raises:
            DeviceError: it cannot be verified.
        """
        self._sync(self._observer)
        slot = Store(self._observer.folder).read().adapters.get(self.channel.adapter)
        if slot is None or slot.policy is None:
            raise DeviceError(
                f"the observer's sync left no policy of {self.channel.adapter} in {self._observer.folder}"
            )
        return slot.policy

    def sync(self, number: int) -> str | None:
        """Sync one device; returns the sha256 of the adapter file that it then runs.

        Raises:
            DeviceError: the sync failed.
        """
        self._sync(self._devices[number])
        return self.runs(number)

    def runs(self, number: int) -> str | None:
        """sha256 of the adapter file that this device's disk says it runs."""
        slot = Store(self._devices[number].folder).read().adapters.get(self.channel.adapter)
        return slot.active.digest if slot and slot.active else None

    def crash_loop(self, number: int) -> None:
        """Start the app until the client takes its previous file back, as it does when no start is a healthy one."""
        for _ in range(MAX_STARTS):
            started(self._devices[number].folder, self.channel.adapter, self.channel.base_digest)

    def _sync(self, device: DeviceConfig) -> None:
        done = sync(device, self.channel.adapter)
        self.syncs += 1
        self.requests += done.requests
        self.bytes += done.bytes

    def _probe_once(self, file: Path, companion: Companion) -> int:
        assert self._probe is not None
        if file.stem not in self._results:
            self._results[file.stem] = self._probe(file, companion)
            self.probed += 1
        return self._results[file.stem]
