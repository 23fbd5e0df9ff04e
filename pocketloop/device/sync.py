"""One sync of a device: verify, choose, download, prove, swap.

What runs is changed by one atomic replacement of `state.json`, after everything was checked; an error at any point, or
a process killed there, leaves the device with what it had. The one exception is deliberate: an adapter whose approval
was taken back stops running even if the rest of the sync fails.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from tuf.api.metadata import TargetFile

from pocketloop.contracts.delivery import RUNTIME, Arm, ChannelPolicy, Companion
from pocketloop.contracts.errors import PocketloopError
from pocketloop.contracts.files import sha256_file
from pocketloop.device.errors import DeviceError, NoChannel, PolicyInvalid, PolicyRolledBack
from pocketloop.device.fetching import Fetcher
from pocketloop.device.store import Attempt, Installed, Slot, State, Store
from pocketloop.device.updater import VerifiedRepository, read_companion

Action = Literal["installed", "unchanged", "reverted", "removed", "kept"]
Probing = Callable[[Path, Companion], int]
"""Runs a companion's golden probes on an adapter file; gives the number that failed."""

PROBES_PER_FAILURE = 8
"""One probe in so many may fail: another processor rounds otherwise, and a close race of two tokens may turn."""
MAX_POLICY = 1 << 14
_CLOCK_TOLERANCE = timedelta(hours=1)


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
    """
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
                    done = _Channel(device, store, fetcher, repository, adapter).bring_up_to_date()
                    used = {"requests": fetcher.requests - before[0], "bytes": fetcher.received - before[1]}
                    outcome = done.model_copy(update=used)
                except DeviceError as error:
                    outcome = error
            outcomes[adapter] = outcome
            _record(store, device, adapter, outcome)
        store.tidy()
    return outcomes


class _Channel:
    """One adapter during one sync."""

    def __init__(
        self, device: DeviceConfig, store: Store, fetcher: Fetcher, repository: VerifiedRepository, adapter: str
    ) -> None:
        self.device = device
        self.store = store
        self.fetcher = fetcher
        self.repository = repository
        self.adapter = adapter
        self.failed: list[str] = []
        """Why files did not work on this device, during this sync."""

    def bring_up_to_date(self) -> SyncResult:
        """Withdraw what is no longer approved, read the policy, and take what it wants for this device."""
        withdrawn = self._withdraw()
        policy = self._policy()
        arm, wanted = policy.arm(self.device.device_id), policy.wanted(self.device.device_id)
        choices = [wanted, policy.stable] if arm == "canary" else [wanted]
        action: Action = "kept"
        reason = ""
        for choice in choices:
            known = self._slot().bad.get(choice or "")
            if known is not None:
                reason = reason or f"{(choice or '')[:12]} does not work on this device: {known}"
                continue
            taken = self._take(choice)
            if taken is not None:
                action = taken[0]
                reason = "; ".join(filter(None, [reason, taken[1]]))
                break
            reason = "; ".join(filter(None, [reason, self.failed[-1]]))
        if withdrawn and action in {"unchanged", "kept"}:
            action = "reverted" if self._slot().active else "removed"
        active = self._slot().active
        return SyncResult(
            adapter=self.adapter,
            action=action,
            reason="; ".join(filter(None, [withdrawn, reason, self._clock_warning()])),
            arm=arm,
            generation=policy.generation,
            wanted=wanted,
            installed=active.digest if active else None,
            reverts=len(self.failed),
        )

    def _clock_warning(self) -> str:
        behind = self.repository.now - self.device.clock()
        return f"this device's clock is at least {behind} behind" if behind > _CLOCK_TOLERANCE else ""

    def _slot(self) -> Slot:
        return self.store.read().adapters[self.adapter]

    @contextmanager
    def _change(self) -> Iterator[Slot]:
        with self.store.change() as state:
            yield _slot_of(state, self.adapter, self.device.base_digest)

    def _withdraw(self) -> str:
        """Stop running what reviewers no longer approve: the previous file if it still is, else the base alone."""
        with self._change() as slot:
            if slot.previous and not self.repository.approved(self.adapter, slot.previous.digest):
                slot.previous = None
            gone = slot.active
            if gone is None or self.repository.approved(self.adapter, gone.digest):
                return ""
            slot.active, slot.previous, slot.starts = slot.previous, None, 0
            why = self.repository.revoked.get(gone.digest, "no longer signed by the reviewers")
            return f"{gone.digest[:12]} was withdrawn: {why}"

    def _policy(self) -> ChannelPolicy:
        """The channel's policy, verified, and never older than one seen before."""
        target = self.repository.policy(self.adapter, self.device.base_digest)
        if target is None:
            raise NoChannel(
                f"no channel is published for {self.adapter} on the base {self.device.base_digest[:12]}; "
                "what runs goes on running"
            )
        slot = self._slot()
        signed = target.hashes.get("sha256", "")
        if slot.policy is None or signed != slot.policy_sha256:
            policy = self._fetch_policy(target)
            if slot.policy is not None and policy.generation <= slot.policy.generation and policy != slot.policy:
                raise PolicyRolledBack(
                    f"{target.path}: generation {policy.generation} where {slot.policy.generation} was seen before"
                )
        else:
            policy = slot.policy
        with self._change() as slot:
            slot.policy, slot.policy_sha256, slot.arm = policy, signed, policy.arm(self.device.device_id)
        return policy

    def _fetch_policy(self, target: TargetFile) -> ChannelPolicy:
        if target.length > MAX_POLICY or "sha256" not in target.hashes:
            raise PolicyInvalid(f"{target.path}: {target.length} bytes, or without sha256: not a policy")
        path = self.store.folder / f"policy-{self.adapter}.json"
        self._download(target, path)
        try:
            policy = ChannelPolicy.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise PolicyInvalid(f"{target.path}: `{where}` is wrong: {first['msg']}") from None
        finally:
            path.unlink(missing_ok=True)
        if (policy.adapter, policy.base_digest) != (self.adapter, self.device.base_digest):
            raise PolicyInvalid(f"{target.path} is the policy of {policy.adapter} on {policy.base_digest[:12]}")
        return policy

    def _take(self, digest: str | None) -> tuple[Action, str] | None:
        """Make `digest` the active file; `None` when it does not work on this device.

        Raises:
            DeviceError: it may not be taken, or could not be fetched.
        """
        slot = self._slot()
        if digest is None:
            if slot.active is None:
                return "unchanged", "the channel serves the base alone"
            self._swap(None)
            return "removed", "the channel serves the base alone"
        target, companion_target = self.repository.files(self.adapter, digest)
        facts = self.repository.facts(target, self.adapter, self.device.base_digest, self.device.runtime)
        active = slot.active is not None and slot.active.digest == digest
        held = slot.previous is not None and slot.previous.digest == digest
        path = self.store.adapter_path(digest)
        here = path.is_file() and path.stat().st_size == target.length
        if here and not active:
            here = sha256_file(path) == digest
        companion = self._companion(companion_target, digest)
        if active and here:
            return "unchanged", ""
        if not here:
            self._download(target, path)
        if not held and not self._works(path, companion, digest):
            return None
        self._swap(Installed(digest=digest, facts=facts, installed_at=self.repository.now))
        if held:
            return "reverted", "the channel went back to the file that this device ran before"
        return "installed", "" if not active else "the file was damaged here"

    def _companion(self, target: TargetFile, digest: str) -> Companion:
        path = self.store.companion_path(digest)
        if not path.is_file() or sha256_file(path) != target.hashes["sha256"]:
            self._download(target, path)
        return read_companion(path, self.adapter)

    def _download(self, target: TargetFile, path: Path) -> None:
        url = self.repository.target_url(target)
        self.fetcher.download_target(url, target.length, target.hashes["sha256"], path, self.device.reserve)

    def _works(self, path: Path, companion: Companion, digest: str) -> bool:
        """Run the golden probes; remember the digest as bad here when too many fail."""
        if self.device.probe is None:
            return True
        try:
            failed, total = self.device.probe(path, companion), len(companion.probes)
            why = f"{failed} of {total} golden probes fail"
            if total and failed * PROBES_PER_FAILURE <= total:
                return True
        except PocketloopError as error:
            why = f"it cannot be run: {error}"
        self.failed.append(f"{digest[:12]} does not work on this device: {why}")
        with self._change() as slot:
            slot.mark_bad(digest, why)
            slot.count_revert(digest)
        return False

    def _swap(self, new: Installed | None) -> None:
        with self._change() as slot:
            if slot.active is None or new is None or slot.active.digest != new.digest:
                slot.previous = slot.active or slot.previous
            if new and slot.previous and slot.previous.digest == new.digest:
                slot.previous = None
            slot.active, slot.starts = new, 0


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
    with store.change() as state:
        _slot_of(state, adapter, base_digest)


def _slot_of(state: State, adapter: str, base_digest: str) -> Slot:
    slot = state.adapters.get(adapter)
    if slot is None or slot.base_digest != base_digest:
        slot = state.adapters[adapter] = Slot(base_digest=base_digest)
    return slot


def _record(store: Store, device: DeviceConfig, adapter: str, outcome: SyncResult | DeviceError) -> None:
    """Remember how the sync ended, for `explain`, and that metadata was valid at this time.

    No signed time is taken over: a stolen online key could name the year 3000 and make all honest metadata expired.
    """
    now = device.clock()
    with store.change() as state:
        slot = _slot_of(state, adapter, device.base_digest)
        if isinstance(outcome, DeviceError):
            slot.last = Attempt(at=now, outcome=type(outcome).__name__, reason=str(outcome))
            return
        slot.last = Attempt(at=now, outcome=outcome.action, reason=outcome.reason)
        state.newest_time = max(state.newest_time, now)
