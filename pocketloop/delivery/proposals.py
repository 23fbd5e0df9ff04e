"""What waits for people's signatures: the next version of stable, targets or root, and the files that it adds.

A proposal is one file, so that it changes as a whole; the files that it adds lie beside it under the names that they
will be published as. A change to what waits drops the signatures that it had, because those were given for something
else. The same file travels to a reviewer's machine and back.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from tuf.api.metadata import Metadata, Root, TargetFile, Targets
from tuf.api.serialization import DeserializationError

from pocketloop.contracts.delivery import STABLE
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import atomic_file, sha256_file
from pocketloop.delivery.approved import revoked_in
from pocketloop.delivery.keys import key_name
from pocketloop.delivery.metadata import ROOT, TARGETS, State, check, keys_of

_SCHEMA = "proposal/1"


class Signatures(BaseModel):
    """Who signed what waits, and whether that is enough."""

    model_config = ConfigDict(frozen=True)

    have: list[str]
    """Names of the keys that signed."""
    need: int
    """Signatures that the role with the highest threshold needs."""
    complete: bool
    missing: list[str] = []
    """What is missing, in words, one line for each role."""


NOTHING_TO_SIGN = Signatures(have=[], need=0, complete=True)


class Change(BaseModel):
    """One thing that a proposal changes, as a person reads it before signing."""

    model_config = ConfigDict(frozen=True)

    action: str
    """`add`, `change`, `remove`, `revoke`, `keys` or `renew`."""
    what: str
    """Target name, or the role whose keys change."""
    detail: dict[str, Any]


class Proposal(BaseModel):
    """What waits: its changes against what is published, and its signatures."""

    model_config = ConfigDict(frozen=True)

    versions: dict[str, int]
    """The new version of each role that changes; empty when nothing waits."""
    expires: dict[str, datetime]
    changes: list[Change]
    signatures: Signatures


@dataclass
class Waiting:
    """Unpublished metadata by role, and the published versions that it was made from."""

    base: dict[str, int] = field(default_factory=dict)
    roles: dict[str, Metadata] = field(default_factory=dict)

    def to_json(self) -> str:
        """The proposal as a file."""
        roles = {role: metadata.to_dict() for role, metadata in sorted(self.roles.items())}
        return json.dumps({"schema": _SCHEMA, "base": self.base, "roles": roles}, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Waiting":
        """Read a proposal's file.

        Raises:
            DeliveryError: it is none.
        """
        try:
            data = json.loads(text)
            if data["schema"] != _SCHEMA or not set(data["roles"]) <= {ROOT, TARGETS, STABLE}:
                raise ValueError("another schema")
            roles = {role: Metadata.from_bytes(json.dumps(value).encode()) for role, value in data["roles"].items()}
            return cls({role: int(data["base"][role]) for role in roles}, roles)
        except (ValueError, KeyError, TypeError, DeserializationError) as error:
            raise DeliveryError(f"{where}: not a proposal ({error})") from None

    def unpublished(self, state: State) -> dict[str, Metadata]:
        """The roles that `state` does not hold in this version yet."""
        return {role: metadata for role, metadata in self.roles.items() if metadata.signed != state.role(role).signed}

    def require(self, state: State) -> None:
        """Make sure that nothing was published since this was made.

        Raises:
            DeliveryError: something was.
        """
        for role in self.unpublished(state):
            version = state.role(role).signed.version
            if version != self.base[role]:
                raise DeliveryError(
                    f"what waits was made from version {self.base[role]} of {role}, but version {version} is published "
                    "since: discard it (`pocketloop cdn discard`) and propose again"
                )


class Staging:
    """The folder of the proposal that waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "proposal.json"

    def read(self) -> Waiting | None:
        """What waits, if anything does."""
        return read_proposal(self._path) if self._path.exists() else None

    def write(self, waiting: Waiting) -> None:
        """Replace what waits."""
        with atomic_file(self._path) as temporary:
            temporary.write_text(waiting.to_json(), encoding="utf-8")

    def clear(self) -> None:
        """Forget what waits, files included."""
        self._path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "files", ignore_errors=True)

    def add_file(self, source: Path, target: Callable[[str], str], facts: dict[str, Any]) -> TargetFile:
        """Copy a file to be published; its length and sha256 are those of the copy.

        Args:
            target: gives the target name for the sha256 of the file.

        Raises:
            DeliveryError: there is no such file.
        """
        if not source.is_file():
            raise DeliveryError(f"{source}: no such file")
        with atomic_file(self.folder / "files" / "incoming") as copy:
            shutil.copyfile(source, copy)
        return self._keep(self.folder / "files" / "incoming", target, facts)

    def add_bytes(self, data: bytes, target: str) -> TargetFile:
        """Write a small file to be published."""
        with atomic_file(self.folder / "files" / "incoming") as copy:
            copy.write_bytes(data)
        return self._keep(self.folder / "files" / "incoming", lambda digest: target, {})

    def file(self, target: TargetFile) -> Path:
        """Where the bytes of a target lie until they are published."""
        return self.folder / "files" / published_name(target)

    def _keep(self, copy: Path, target: Callable[[str], str], facts: dict[str, Any]) -> TargetFile:
        digest = sha256_file(copy)
        found = TargetFile(copy.stat().st_size, {"sha256": digest}, target(digest), {"custom": facts} if facts else {})
        path = self.file(found)
        path.parent.mkdir(parents=True, exist_ok=True)
        copy.replace(path)
        return found


def read_proposal(path: Path) -> Waiting:
    """Read a proposal's file.

    Raises:
        DeliveryError: there is none, or it is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(f"{path}: cannot be read: {error}") from None
    return Waiting.from_json(text, str(path))


def published_name(target: TargetFile) -> str:
    """Name of a target's file: its sha256 stands before the last part (consistent snapshots)."""
    return f"targets/{target.get_prefixed_paths()[0]}"


def added(state: State, stable: Metadata) -> list[TargetFile]:
    """Targets of a proposed `stable` that are not published yet."""
    return [target for path, target in sorted(stable.signed.targets.items()) if path not in state.stable.signed.targets]


def describe(state: State, waiting: Waiting | None) -> Proposal:
    """Compare what waits with what is published: the changes follow from what is signed, and from nothing else."""
    if waiting is None:
        return Proposal(versions={}, expires={}, changes=[], signatures=NOTHING_TO_SIGN)
    changes: list[Change] = []
    if stable := waiting.roles.get(STABLE):
        before, after = state.stable.signed.targets, stable.signed.targets
        revoked = {digest: why for digest, why in revoked_in(stable).items() if digest not in revoked_in(state.stable)}
        changes += [_change("add", target) for target in added(state, stable)]
        changes += [
            _change("change", target) for path, target in after.items() if path in before and before[path] != target
        ]
        changes += [_change("remove", target) for path, target in sorted(before.items()) if path not in after]
        changes += [Change(action="revoke", what=digest, detail={"reason": why}) for digest, why in revoked.items()]
    changes += _key_changes(state, waiting)
    if not changes:
        changes = [Change(action="renew", what=role, detail={}) for role in waiting.roles]
    versions = {role: metadata.signed.version for role, metadata in waiting.roles.items()}
    expires = {role: metadata.signed.expires for role, metadata in waiting.roles.items()}
    return Proposal(versions=versions, expires=expires, changes=changes, signatures=signatures(state, waiting))


def demands(state: State, waiting: Waiting) -> list[tuple[str, Root | Targets]]:
    """Everybody who must be satisfied with what waits: the role, and the metadata that demands signatures of it.

    Devices that have the old root read new targets while they fetch the new root, so both must accept them.
    """
    roots = [state.root.signed]
    if new_root := waiting.roles.get(ROOT):
        roots.append(new_root.signed)
    targets = waiting.roles.get(TARGETS, state.targets).signed
    return [(role, who) for role in waiting.roles for who in ([targets] if role == STABLE else roots)]


def signatures(state: State, waiting: Waiting) -> Signatures:
    """Count the signatures of what waits."""
    have: set[str] = set()
    missing: list[str] = []
    need = 0
    for role, delegator in demands(state, waiting):
        result = check(delegator, role, waiting.roles[role])
        have |= {key_name(key) for key in result.signed.values()}
        need = max(need, result.threshold)
        if not result:
            others = ", ".join(sorted(key_name(key) for key in result.unsigned.values()))
            line = f"{role}: {len(result.signed)} of {result.threshold} signatures; can sign: {others}"
            missing += [line] if line not in missing else []
    return Signatures(have=sorted(have), need=need, complete=not missing, missing=missing)


def _change(action: str, target: TargetFile) -> Change:
    detail = {"sha256": target.hashes["sha256"], "bytes": target.length, **(target.custom or {})}
    return Change(action=action, what=target.path, detail=detail)


def _key_changes(state: State, waiting: Waiting) -> list[Change]:
    changes: list[Change] = []
    for holder in (ROOT, TARGETS):
        if holder not in waiting.roles:
            continue
        old, new = state.role(holder).signed, waiting.roles[holder].signed
        for role in new.roles if holder == ROOT else new.delegations.roles:
            before = {key.keyid: key_name(key) for key in keys_of(old, role)}
            after = {key.keyid: key_name(key) for key in keys_of(new, role)}
            thresholds = old.get_delegated_role(role).threshold, new.get_delegated_role(role).threshold
            if before != after or thresholds[0] != thresholds[1]:
                detail = {
                    "added": {name: keyid for keyid, name in after.items() if keyid not in before},
                    "removed": {name: keyid for keyid, name in before.items() if keyid not in after},
                    "threshold": thresholds[1],
                }
                changes.append(Change(action="keys", what=role, detail=detail))
    return changes
