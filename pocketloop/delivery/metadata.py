"""The signed metadata of the repository: how it begins, how it is read back and verified, how it is signed.

Roles follow The Update Framework (TUF, specification 1.0): `root` says who may sign what, `targets` delegates adapters
and bases to the reviewers (`stable`) and channel policies to the online key (`channels`), `snapshot` lists the current
version of each, `timestamp` says which snapshot is current. All files but `timestamp.json` carry their version in
their name (consistent snapshots), so that a device in the middle of a sync finishes with the state it began with.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Targets,
    VerificationResult,
)
from tuf.api.serialization import DeserializationError

from pocketloop.contracts.delivery import CHANNELS, STABLE
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.rollout import DeliveryConfig, ExpiryDays
from pocketloop.delivery.keys import sign_payload
from pocketloop.delivery.storage import TIMESTAMP, Storage

ROOT, TARGETS = "root", "targets"
SNAPSHOTTED = (TARGETS, STABLE, CHANNELS)
"""The roles whose versions the snapshot lists, each signed by people or by the one before it."""
ONLINE_ROLES = (CHANNELS, "snapshot", "timestamp")


@dataclass(frozen=True)
class State:
    """One verified state of the repository, as devices see it."""

    root: Metadata
    timestamp: Metadata
    snapshot: Metadata
    targets: Metadata
    stable: Metadata
    channels: Metadata

    def role(self, name: str) -> Metadata:
        """Metadata of a role."""
        found: Metadata = getattr(self, name)
        return found

    def delegator(self, role: str) -> Root | Targets:
        """Whoever says which keys sign `role`."""
        return self.targets.signed if role in (STABLE, CHANNELS) else self.root.signed


def file_name(role: str, version: int) -> str:
    """Name of a role's metadata file."""
    return TIMESTAMP if role == "timestamp" else f"metadata/{version}.{role}.json"


def keys_of(delegator: Root | Targets, role: str) -> list[Key]:
    """The keys that may sign `role`."""
    return [delegator.get_key(keyid) for keyid in delegator.get_delegated_role(role).keyids]


def check(delegator: Root | Targets, role: str, metadata: Metadata) -> VerificationResult:
    """Which of the needed signatures `metadata` carries; true when they reach the threshold."""
    payload = metadata.signed_bytes if metadata.signatures else b""  # long metadata takes a while to write down
    return delegator.get_verification_result(role, payload, metadata.signatures)


def sign(metadata: Metadata, signers: Iterable[Signer]) -> None:
    """Add a signature of each signer."""
    payload = metadata.signed_bytes
    for signer in signers:
        signature = sign_payload(signer, payload)
        metadata.signatures[signature.keyid] = signature


def expiry(role: str, days: ExpiryDays, now: datetime) -> datetime:
    """When metadata of `role` that is signed `now` (aware) expires, in UTC."""
    return now.astimezone(UTC) + lifetime(role, days)


def lifetime(role: str, days: ExpiryDays) -> timedelta:
    """How long metadata of `role` is valid."""
    return timedelta(days=float(getattr(days, role)))


def successor(metadata: Metadata, version: int, expires: datetime) -> Metadata:
    """An unsigned copy with a new version and expiry."""
    copy: Metadata = Metadata.from_bytes(metadata.to_bytes())
    copy.signatures.clear()
    copy.signed.version = version
    copy.signed.expires = expires
    return copy


def first_metadata(
    config: DeliveryConfig, roots: list[Key], reviewers: list[Key], online: Key, now: datetime
) -> dict[str, Metadata]:
    """Unsigned version 1 of root, targets, stable and channels."""
    days = config.expiry_days
    root_ids, reviewer_ids = [key.keyid for key in roots], [key.keyid for key in reviewers]
    root = Root(
        expires=expiry(ROOT, days, now),
        keys={key.keyid: key for key in [*roots, online]},
        roles={
            ROOT: Role(list(root_ids), config.root.threshold),
            TARGETS: Role(list(root_ids), config.root.threshold),
            "snapshot": Role([online.keyid], 1),
            "timestamp": Role([online.keyid], 1),
        },
        consistent_snapshot=True,
    )
    delegations = Delegations(
        keys={key.keyid: key for key in [*reviewers, online]},
        roles={
            # Terminating: what `stable` does not name under its paths, nobody else can name.
            STABLE: DelegatedRole(STABLE, reviewer_ids, config.reviewers.threshold, True, [f"{STABLE}/*/*"]),
            CHANNELS: DelegatedRole(CHANNELS, [online.keyid], 1, True, [f"{CHANNELS}/*/*"]),
        },
    )
    return {
        ROOT: Metadata(root),
        TARGETS: Metadata(Targets(expires=expiry(TARGETS, days, now), delegations=delegations)),
        STABLE: Metadata(Targets(expires=expiry(STABLE, days, now))),
        CHANNELS: Metadata(Targets(expires=expiry(CHANNELS, days, now))),
    }


def meta_file(version: int, data: bytes) -> MetaFile:
    """How a snapshot or timestamp names a metadata file: version, length and sha256."""
    return MetaFile.from_data(version, data, ["sha256"])


def read_root(storage: Storage, trusted: bytes) -> tuple[Metadata, Metadata | None]:
    """Walk from a trusted root to the newest one; returns it and the one before, if there is one."""
    root, before = parse(trusted, "the trusted root"), None
    while True:
        name = file_name(ROOT, root.signed.version + 1)
        try:
            data = storage.get(name)
        except FileNotFoundError:
            return root, before
        following = parse(data, name)
        for demanding in (root.signed, following.signed):
            _demand(demanding, ROOT, following, name)
        if following.signed.version != root.signed.version + 1:
            raise DeliveryError(f"{storage.address}: {name} holds version {following.signed.version}; restore a backup")
        root, before = following, root


def read_state(
    storage: Storage, trusted: bytes, known: State | None = None, rotating: Callable[[], bool] = bool, lowest: int = 0
) -> State:
    """Read and verify the state that `timestamp.json` names, as a device would, whether or not it has expired.

    Args:
        trusted: a root that this machine trusts.
        known: a state read earlier; what did not change since is taken from it.
        rotating: asked whether a new root may have been published a moment ago, whose timestamp is still to come.
        lowest: a timestamp of a lower version is one that somebody put back.

    Raises:
        DeliveryError: there is no repository, or not one that these keys signed.
    """
    try:
        data = storage.get(TIMESTAMP)
    except FileNotFoundError:
        raise DeliveryError(f"{storage.address} holds no repository; make one with `pocketloop cdn init`") from None
    root, before = read_root(storage, trusted if known is None else known.root.to_bytes())
    if known is not None and before is None and data == known.timestamp.to_bytes():
        return known
    timestamp = parse(data, TIMESTAMP)
    online = root  # the root that what is published was signed for
    if before is not None and not check(root.signed, "timestamp", timestamp) and rotating():
        online = before
    _demand(online.signed, "timestamp", timestamp, TIMESTAMP)
    if timestamp.signed.version < lowest:
        raise DeliveryError(
            f"{storage.address}: {TIMESTAMP} is version {timestamp.signed.version}, but version {lowest} was published "
            "before: somebody put an older state back; restore the newest one"
        )
    meta = timestamp.signed.snapshot_meta
    if known is not None and known.timestamp.signed.snapshot_meta == meta:
        snapshot = known.snapshot
    else:
        snapshot = _read(storage, "snapshot", meta)
    _demand(online.signed, "snapshot", snapshot, "snapshot.json")
    found: dict[str, Metadata] = {}
    for role in SNAPSHOTTED:
        meta = snapshot.signed.meta[f"{role}.json"]
        unchanged = known is not None and known.snapshot.signed.meta[f"{role}.json"] == meta
        found[role] = known.role(role) if known is not None and unchanged else _read(storage, role, meta)
    state = State(root, timestamp, snapshot, **found)
    for role in SNAPSHOTTED:
        if known is None or before is not None or any(state.role(x) is not known.role(x) for x in (TARGETS, role)):
            delegator = online.signed if role == TARGETS else state.delegator(role)
            _demand(delegator, role, state.role(role), f"{role}.json")
    return state


def parse(data: bytes, name: str) -> Metadata:
    """Parse a metadata file.

    Raises:
        DeliveryError: it is none.
    """
    try:
        metadata: Metadata = Metadata.from_bytes(data)
    except DeserializationError as error:
        raise DeliveryError(f"{name}: not signed metadata: {error}") from None
    return metadata


def _read(storage: Storage, role: str, meta: MetaFile) -> Metadata:
    name = file_name(role, meta.version)
    try:
        data = storage.get(name)
    except FileNotFoundError:
        raise DeliveryError(f"{storage.address}: {name} is missing; restore it from a backup") from None
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise DeliveryError(f"{storage.address}: {name} was changed: {error}; restore it from a backup") from None
    return parse(data, name)


def _demand(delegator: Root | Targets, role: str, metadata: Metadata, name: str) -> None:
    result = check(delegator, role, metadata)
    if not result:
        raise DeliveryError(
            f"{name}: {len(result.signed)} of {result.threshold} signatures that role {role} needs; it was changed, or "
            "signed with keys that no longer count: restore it from a backup"
        )
