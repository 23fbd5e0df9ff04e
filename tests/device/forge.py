"""A publisher without scruples: every key in hand, and nothing that checks what it signs.

`Forge.of(home)` takes over a repository that `pocketloop.delivery` made, keys included; `Forge.fresh` makes one of its
own with fixed keys. Tests then change metadata as an attacker with this or that key could.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from pocketloop.contracts.delivery import (
    CHANNELS,
    STABLE,
    AdapterFacts,
    ChannelPolicy,
    Companion,
    adapter_target,
    companion_target,
    policy_target,
)
from pocketloop.contracts.files import sha256_text
from pocketloop.contracts.home import Home

FAR = datetime(2100, 1, 1, tzinfo=UTC)
_SERIALIZER = JSONSerializer()
_ROLES = ("root", "targets", STABLE, CHANNELS, "snapshot", "timestamp")
_KIND = {"root": "root", "targets": "root", STABLE: "reviewer"}


class Forge:
    def __init__(self, folder: Path, keys: dict[str, CryptoSigner], roles: dict[str, Metadata]) -> None:
        self.folder = folder
        self.keys = keys
        self.roles = roles

    @classmethod
    def of(cls, home: Home) -> "Forge":
        keys = {p.stem: CryptoSigner(load_pem_private_key(p.read_bytes(), None)) for p in home.keys.glob("*.pem")}
        forge = cls(home.cdn, keys, {})
        forge.reload()
        return forge

    @classmethod
    def fresh(cls, folder: Path, expires: datetime = FAR) -> "Forge":
        names = ["root-1", "root-2", "reviewer-1", "reviewer-2", "reviewer-3", "online"]
        keys = {name: fixed_key(name) for name in names}
        kinds = ("root", "reviewer")
        ids = {kind: [k.public_key.keyid for n, k in keys.items() if n.startswith(kind)] for kind in kinds}
        public = {signer.public_key.keyid: signer.public_key for signer in keys.values()}
        online = keys["online"].public_key.keyid
        root = Root(
            expires=expires,
            keys={key: public[key] for key in [*ids["root"], online]},
            roles={
                "root": Role(list(ids["root"]), 1),
                "targets": Role(list(ids["root"]), 1),
                "snapshot": Role([online], 1),
                "timestamp": Role([online], 1),
            },
            consistent_snapshot=True,
        )
        delegations = Delegations(
            keys={key: public[key] for key in [*ids["reviewer"], online]},
            roles={
                STABLE: DelegatedRole(STABLE, ids["reviewer"], 2, True, [f"{STABLE}/*/*"]),
                CHANNELS: DelegatedRole(CHANNELS, [online], 1, True, [f"{CHANNELS}/*/*"]),
            },
        )
        roles = {
            "root": Metadata(root),
            "targets": Metadata(Targets(expires=expires, delegations=delegations)),
            STABLE: Metadata(Targets(expires=expires)),
            CHANNELS: Metadata(Targets(expires=expires)),
            "snapshot": Metadata(Snapshot(expires=expires)),
            "timestamp": Metadata(Timestamp(expires=expires)),
        }
        forge = cls(folder, keys, roles)
        for role in _ROLES[:4]:
            forge.sign(role, bump=False)
        forge.publish(bump=False)
        return forge

    def reload(self) -> None:
        """Take over what lies in the folder."""
        for role in _ROLES:
            self.roles[role] = Metadata.from_file(str(self._newest(role)))

    def _newest(self, role: str) -> Path:
        if role == "timestamp":
            return self.folder / "metadata" / "timestamp.json"
        found = (self.folder / "metadata").glob(f"*.{role}.json")
        return max(found, key=lambda path: int(path.name.split(".")[0]))

    def signed(self, role: str) -> Any:
        return self.roles[role].signed

    def sign(self, role: str, keys: Iterable[str] | None = None, bump: bool = True) -> None:
        """Sign a role with the named keys (by default all of its own) and write it."""
        metadata = self.roles[role]
        if bump:
            metadata.signed.version += 1
        kind = _KIND.get(role, "online")
        names = list(keys) if keys is not None else sorted(n for n in self.keys if n.startswith(kind))
        metadata.signatures.clear()
        for name in names:
            metadata.sign(self.keys[name], append=True)
        self.write(role)

    def path(self, role: str) -> Path:
        name = "timestamp.json" if role == "timestamp" else f"{self.signed(role).version}.{role}.json"
        return self.folder / "metadata" / name

    def write(self, role: str) -> Path:
        path = self.path(role)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.roles[role].to_bytes(_SERIALIZER))
        return path

    def meta(self, role: str) -> MetaFile:
        data = self.path(role).read_bytes()
        return MetaFile.from_data(self.signed(role).version, data, ["sha256"])

    def publish(self, bump: bool = True) -> None:
        """Snapshot and timestamp over what the roles are now."""
        for role in ("targets", STABLE, CHANNELS):
            self.signed("snapshot").meta[f"{role}.json"] = self.meta(role)
        self.sign("snapshot", bump=bump)
        self.signed("timestamp").snapshot_meta = self.meta("snapshot")
        self.sign("timestamp", bump=bump)

    def add_target(self, role: str, name: str, data: bytes, facts: dict[str, Any] | None = None) -> TargetFile:
        """Name a file in a role (not signed yet) and lay its bytes where devices look."""
        found = TargetFile.from_data(name, data, ["sha256"])
        if facts is not None:
            found.unrecognized_fields["custom"] = facts
        self.signed(role).targets[name] = found
        self.lay(found, data)
        return found

    def lay(self, target: TargetFile, data: bytes) -> None:
        path = self.target_path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def target_path(self, target: TargetFile) -> Path:
        return self.folder / "targets" / target.get_prefixed_paths()[0]

    def add_adapter(self, data: bytes, facts: AdapterFacts, companion: Companion) -> str:
        """Approve an adapter file in `stable` (not signed yet); gives its digest."""
        digest = TargetFile.from_data("x", data, ["sha256"]).hashes["sha256"]
        described = facts.model_dump(mode="json", by_alias=True)
        self.add_target(STABLE, adapter_target(facts.adapter, digest), data, described)
        beside = json.dumps(companion.model_dump(mode="json", by_alias=True)).encode()
        self.add_target(STABLE, companion_target(facts.adapter, digest), beside)
        return digest

    def set_policy(self, policy: ChannelPolicy | dict[str, Any], path: str = "") -> None:
        """Sign a channel's policy with the online key and publish it, whatever it says."""
        data = policy.model_dump(mode="json", by_alias=True) if isinstance(policy, ChannelPolicy) else policy
        name = path or policy_target(data["adapter"], data["base_digest"])
        self.add_target(CHANNELS, name, json.dumps(data).encode())
        self.sign(CHANNELS)
        self.publish()


def fixed_key(name: str) -> CryptoSigner:
    """The same key each time: for vectors and forgeries only."""
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(sha256_text(f"a test key, worth nothing: {name}")))
    return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))
