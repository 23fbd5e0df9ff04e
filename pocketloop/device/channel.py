"""One adapter during one sync: withdraw, choose, download, prove, swap."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError
from tuf.api.metadata import TargetFile

from pocketloop.contracts.delivery import ChannelPolicy, Companion
from pocketloop.contracts.errors import PocketloopError
from pocketloop.contracts.files import sha256_file
from pocketloop.device.config import Action, DeviceConfig, SyncResult
from pocketloop.device.errors import NoChannel, PolicyInvalid, PolicyRolledBack
from pocketloop.device.fetching import Fetcher
from pocketloop.device.store import Installed, Slot, State, Store
from pocketloop.device.updater import VerifiedRepository, read_companion

PROBES_PER_FAILURE = 8
"""One probe in so many may fail: another processor rounds otherwise, and a close race of two tokens may turn."""
MAX_POLICY = 1 << 14
_CLOCK_TOLERANCE = timedelta(hours=1)


class Channel:
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
            yield slot_of(state, self.adapter, self.device.base_digest)

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
        data = self.fetcher.small_target(self.repository.target_url(target), target.length, target.hashes["sha256"])
        try:
            policy = ChannelPolicy.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise PolicyInvalid(f"{target.path}: `{where}` is wrong: {first['msg']}") from None
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


def slot_of(state: State, adapter: str, base_digest: str) -> Slot:
    """The adapter's slot; an empty one when there is none, or it was for another base."""
    slot = state.adapters.get(adapter)
    if slot is None or slot.base_digest != base_digest:
        slot = state.adapters[adapter] = Slot(base_digest=base_digest)
    return slot
