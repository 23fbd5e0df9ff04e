"""Writing a new state of the repository so that no device ever sees half of it."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Snapshot, Timestamp

from pocketloop.contracts.delivery import CHANNELS
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import atomic_file, write_json
from pocketloop.contracts.rollout import DeliveryConfig
from pocketloop.delivery.keys import KeyRing, key_name
from pocketloop.delivery.metadata import (
    ROOT,
    SNAPSHOTTED,
    State,
    expiry,
    file_name,
    keys_of,
    meta_file,
    parse,
    sign,
)
from pocketloop.delivery.storage import Storage


class Memory:
    """What this machine knows of the repository whatever the storage says: the first root, the newest timestamp."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root.json"
        """Version 1 of root, as it is shipped with the app."""
        self._published = folder / "published.json"

    def trusted(self) -> bytes:
        """The root that everything is verified from.

        Raises:
            DeliveryError: this machine has none.
        """
        try:
            return self.root.read_bytes()
        except FileNotFoundError:
            raise DeliveryError(
                f"there is no {self.root}: make a repository with `pocketloop cdn init`, or bring root.json from the "
                "machine where that was done"
            ) from None

    def keep_root(self, data: bytes) -> None:
        """Trust this first root from now on."""
        with atomic_file(self.root) as temporary:
            temporary.write_bytes(data)

    def lowest(self) -> int:
        """Version of the newest timestamp that this machine published; 0 when none."""
        try:
            return int(json.loads(self._published.read_text(encoding="utf-8"))["timestamp"])
        except FileNotFoundError:
            return 0

    def remember(self, timestamp: int) -> None:
        """Note that this version was published."""
        write_json(self._published, {"timestamp": timestamp})


class Committer:
    """Signs what is signed online, and writes a state in the order that keeps devices whole."""

    def __init__(self, storage: Storage, keys: KeyRing, config: DeliveryConfig) -> None:
        self._storage = storage
        self._keys = keys
        self._days = config.expiry_days

    def free_version(self, role: str, current: int) -> int:
        """The next version whose file name nothing has taken: a killed run may have left some."""
        version = current + 1
        while self._storage.exists(file_name(role, version)):
            version += 1
        return version

    def signers(self, role: str, delegators: Iterable[Any]) -> list[Signer]:
        """The signers here of an online role; the first delegator's threshold must be met.

        Raises:
            DeliveryError: a key is not on this machine.
        """
        wanted = list(delegators)
        found: dict[str, Signer] = {}
        for delegator in wanted:
            for key in keys_of(delegator, role):
                if key.keyid not in found and (signer := self._keys.signer(key)) is not None:
                    found[key.keyid] = signer
        first = wanted[0].get_delegated_role(role)
        if len([keyid for keyid in first.keyids if keyid in found]) < first.threshold:
            names = ", ".join(key_name(key) for key in keys_of(wanted[0], role))
            raise DeliveryError(
                f"role {role} is signed by {names}, which is not in {self._keys.folder} of this machine"
            )
        return list(found.values())

    def write_role(self, role: str, metadata: Metadata) -> Any:
        """Write metadata under its version and describe it for a snapshot."""
        name, data = file_name(role, metadata.signed.version), metadata.to_bytes()
        if self._storage.exists(name):
            # A run that was killed wrote it. Its bytes stay, even if this copy has gathered more signatures.
            data = self._storage.get(name)
            if parse(data, name).signed != metadata.signed:
                raise DeliveryError(
                    f"{self._storage.address}: another {name} exists; discard the proposal, propose again"
                )
        else:
            self._storage.put(name, data)
        return meta_file(metadata.signed.version, data)

    def commit(
        self,
        state: State,
        now: datetime,
        roles: dict[str, Metadata] | None = None,
        root: Metadata | None = None,
        new_snapshot: bool = True,
    ) -> int:
        """Make `roles` (and a new `root`) what devices see; returns the version of the timestamp.

        With a new root, snapshot and timestamp carry signatures that the old root demands as well, so that it does
        not matter which of the two a device has while both are being written. Where the old online key is gone, the
        root goes first, and a device that comes between these two writes keeps what it has.
        """
        roots = [state.root.signed] if root is None else [root.signed, state.root.signed]
        signers = {role: self.signers(role, roots) for role in ("snapshot", "timestamp")}
        meta, snapshot = dict(state.snapshot.signed.meta), state.snapshot
        for role in SNAPSHOTTED:
            if roles and role in roles:
                meta[f"{role}.json"] = self.write_role(role, roles[role])
        snapshot_meta = state.timestamp.signed.snapshot_meta
        if new_snapshot:
            version = self.free_version("snapshot", snapshot.signed.version)
            snapshot = Metadata(Snapshot(version, expires=expiry("snapshot", self._days, now), meta=meta))
            sign(snapshot, signers["snapshot"])
            snapshot_meta = self.write_role("snapshot", snapshot)
        version = state.timestamp.signed.version + 1
        timestamp = Metadata(Timestamp(version, None, expiry("timestamp", self._days, now), snapshot_meta))
        sign(timestamp, signers["timestamp"])
        writes = [("timestamp", timestamp)]
        if root is not None:
            old_can_verify = all(
                state.root.signed.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
                for role, metadata in (("snapshot", snapshot), ("timestamp", timestamp))
            )
            writes.insert(1 if old_can_verify else 0, (ROOT, root))
        for role, metadata in writes:
            self._storage.put(file_name(role, metadata.signed.version), metadata.to_bytes())
        return version

    def sign_channels(self, channels: Metadata, targets: Metadata) -> Metadata:
        """Sign channel policies with the online key that `targets` names."""
        sign(channels, self.signers(CHANNELS, [targets.signed]))
        return channels

    def begin(self, first: dict[str, Metadata], now: datetime, memory: Memory) -> int:
        """Write version 1 of everything, `timestamp.json` last; nothing is served from here before that."""
        roots = [first[ROOT].signed]
        meta = {}
        for role in SNAPSHOTTED:
            data = first[role].to_bytes()
            self._storage.put(file_name(role, 1), data)
            meta[f"{role}.json"] = meta_file(1, data)
        snapshot = Metadata(Snapshot(1, expires=expiry("snapshot", self._days, now), meta=meta))
        sign(snapshot, self.signers("snapshot", roots))
        self._storage.put(file_name("snapshot", 1), snapshot.to_bytes())
        data = first[ROOT].to_bytes()
        self._storage.put(file_name(ROOT, 1), data)
        snapshot_meta = meta_file(1, snapshot.to_bytes())
        timestamp = Metadata(Timestamp(1, None, expiry("timestamp", self._days, now), snapshot_meta))
        sign(timestamp, self.signers("timestamp", roots))
        memory.keep_root(data)
        self._storage.put(file_name("timestamp", 1), timestamp.to_bytes())
        return 1
