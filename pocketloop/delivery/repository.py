"""The signed repository: reviewers approve adapters in it, the online key says which of them each channel serves.

Publishing never changes a file that devices may be reading. It writes the new targets, then the metadata that names
them, then a snapshot of that metadata, and `timestamp.json` last: until that one write, which is atomic, every device
sees the old state, and after it the new one. What a killed publisher leaves behind is named by nothing; the next run
takes other version numbers and finishes.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError
from securesystemslib.signer import Key
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, TargetFile

from pocketloop.contracts.delivery import (
    CHANNELS,
    STABLE,
    AdapterFacts,
    BaseFacts,
    ChannelPolicy,
    Companion,
    adapter_target,
    base_target,
    companion_target,
    policy_target,
)
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import atomic_file, canonical_json, sha256_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import DeliveryConfig
from pocketloop.delivery import ceremony, upkeep
from pocketloop.delivery.approved import REVOKED, approved_in, bases_in, refuse_tricks, revoked_in
from pocketloop.delivery.commit import Committer, Memory
from pocketloop.delivery.keys import KeyRing
from pocketloop.delivery.metadata import (
    ROOT,
    TARGETS,
    State,
    check,
    expiry,
    keys_of,
    read_state,
    sign,
    successor,
)
from pocketloop.delivery.proposals import (
    Proposal,
    Signatures,
    Staging,
    Waiting,
    added,
    demands,
    describe,
    published_name,
    read_proposal,
    signatures,
)
from pocketloop.delivery.storage import TIMESTAMP, Storage

_LOCK_SECONDS = 120
"""How long to wait for another process that publishes."""


class Repository:
    """The publishing side of the repository. Reading needs `root.json`; each change needs the keys of its role."""

    def __init__(self, config: DeliveryConfig, home: Home, now: Callable[[], datetime] | None = None) -> None:
        """Use `open` or `create`; `now` stands in for the clock in tests."""
        self.config = config
        self.keys = KeyRing(home.keys)
        self.storage = Storage(config.repository or home.cdn)
        self.staging = Staging(home.staging / "proposal")
        self.memory = Memory(home.keys)
        self.now = now or (lambda: datetime.now(UTC))
        self.committer = Committer(self.storage, self.keys, config)
        self._root = home.root
        self._lock = FileLock(home.root / "cdn.lock", timeout=_LOCK_SECONDS)
        self._known: State | None = None
        self._policies: dict[str, ChannelPolicy] = {}

    @classmethod
    def create(cls, config: DeliveryConfig, home: Home, now: Callable[[], datetime] | None = None) -> "Repository":
        """Hold the key ceremony: make or take in the keys, and write the first metadata.

        Keys whose public part somebody handed in (NAME.pub in the keys folder) are not made here, so that their
        private part never touches this machine; a role whose keys are elsewhere cannot be signed here either.

        Raises:
            DeliveryError: there is a repository already, or too few private keys of root and reviewers are here.
        """
        repository = cls(config, home, now)
        ceremony.begin(repository)
        return repository

    @classmethod
    def open(cls, config: DeliveryConfig, home: Home, now: Callable[[], datetime] | None = None) -> "Repository":
        """Open the repository and verify it.

        Raises:
            DeliveryError: there is none, or not one that the keys behind `root.json` signed.
        """
        repository = cls(config, home, now)
        if not repository.memory.root.exists() and not repository.storage.exists(TIMESTAMP):
            raise DeliveryError(
                f"{repository.storage.address} holds no repository; make one with `pocketloop cdn init`"
            )
        repository.state()
        return repository

    def root_bytes(self) -> bytes:
        """Version 1 of root: what an app ships, and verifies everything else from."""
        return self.memory.trusted()

    def approved(self) -> dict[str, AdapterFacts]:
        """Facts of each approved adapter, by the sha256 of its file."""
        return approved_in(self.state().stable)

    def bases(self) -> dict[str, BaseFacts]:
        """Facts of each approved base, by the sha256 of its file."""
        return bases_in(self.state().stable)

    def revoked(self) -> dict[str, str]:
        """Why each revoked digest was revoked."""
        return revoked_in(self.state().stable)

    def policies(self) -> list[ChannelPolicy]:
        """What each channel serves now, in the order of their names."""
        targets = self.state().channels.signed.targets
        return [self._read_policy(target) for _, target in sorted(targets.items())]

    def policy(self, adapter: str, base_digest: str) -> ChannelPolicy | None:
        """What one channel serves now; `None` when there is no such channel."""
        target = self.state().channels.signed.targets.get(policy_target(adapter, base_digest))
        return None if target is None else self._read_policy(target)

    def propose_adapter(self, file: Path, companion: Companion, facts: AdapterFacts) -> Proposal:
        """Propose an adapter file for the reviewers' signatures; what is approved already needs none.

        Raises:
            DeliveryError: facts and companion are of two adapters, the file is revoked, or approved with other facts.
        """
        if facts.adapter == "base" or facts.adapter != companion.adapter:
            raise DeliveryError(f"facts of adapter {facts.adapter!r} with a companion of {companion.adapter!r}")
        with self._proposing() as (waiting, stable):
            custom = facts.model_dump(by_alias=True, mode="json")
            target = self.staging.add_file(file, lambda digest: adapter_target(facts.adapter, digest), custom)
            data = canonical_json(companion.model_dump(by_alias=True, mode="json")).encode()
            beside = self.staging.add_bytes(data, companion_target(facts.adapter, target.hashes["sha256"]))
            return self._add(waiting, stable, [target, beside])

    def propose_base(self, file: Path, facts: BaseFacts) -> Proposal:
        """Propose a base file for the reviewers' signatures.

        Raises:
            DeliveryError: the file is revoked, or approved with other facts.
        """
        with self._proposing() as (waiting, stable):
            custom = facts.model_dump(by_alias=True, mode="json")
            return self._add(waiting, stable, [self.staging.add_file(file, base_target, custom)])

    def propose_revocation(self, digest: str, reason: str) -> Proposal:
        """Propose to take an adapter or a base out for ever; channels that serve it fall back when it is published.

        Raises:
            DeliveryError: nothing approved or proposed has this digest, or no reason is given.
        """
        if not reason.strip():
            raise DeliveryError("a revocation needs a reason: it stays in the signed metadata")
        with self._proposing() as (waiting, stable):
            paths = [path for path in stable.signed.targets if path.rpartition("/")[2].partition(".")[0] == digest]
            if not paths and digest not in revoked_in(stable):
                raise DeliveryError(
                    f"no approved adapter or base has the digest {digest}; `pocketloop cdn status --json`"
                )
            for path in paths:
                del stable.signed.targets[path]
            stable.signed.unrecognized_fields[REVOKED] = {digest: reason.strip()} | revoked_in(stable)
            return self._propose(waiting)

    def proposal(self) -> Proposal:
        """What waits for signatures, compared with what is published; no versions when nothing waits."""
        state = self.state()
        return describe(state, self.waiting(state))

    def discard(self) -> None:
        """Forget what waits."""
        with self.exclusive():
            self.staging.clear()

    def sign(self, key: str | None = None) -> Signatures:
        """Sign what waits.

        Args:
            key: the name of a key, `NAME=ADDRESS` of an external signer, or the path of a PEM file; without it, every
                key on this machine that counts for what waits.

        Raises:
            DeliveryError: nothing waits, the key does not count for it, or it says what must never be said.
        """
        with self.exclusive():
            state = self.state()
            waiting = self.waiting(state)
            if waiting is None:
                raise DeliveryError("nothing waits for signatures")
            if STABLE in waiting.roles:
                refuse_tricks(state.stable, waiting.roles[STABLE])
            wanted: dict[str, dict[str, Key]] = {}
            for role, _, delegator in demands(state, waiting):
                wanted.setdefault(role, {}).update({key.keyid: key for key in keys_of(delegator, role)})
            keys = {keyid: known for by_id in wanted.values() for keyid, known in by_id.items()}
            if key is None:
                signers = [signer for known in keys.values() if (signer := self.keys.signer(known)) is not None]
            else:
                signers = [self.keys.chosen(key, keys.values())]
            for role, by_id in wanted.items():
                sign(waiting.roles[role], [signer for signer in signers if signer.public_key.keyid in by_id])
            self.staging.write(waiting)
            return signatures(state, waiting)

    def export_proposal(self, path: Path) -> None:
        """Write what waits, with its signatures, to one file that travels to a reviewer's machine and back."""
        waiting = self.waiting(self.state())
        if waiting is None:
            raise DeliveryError("nothing waits for signatures")
        with atomic_file(path) as temporary:
            temporary.write_text(waiting.to_json(), encoding="utf-8")

    def import_proposal(self, path: Path) -> Signatures:
        """Take in such a file: the signatures of what waits here too, or all of it when nothing waits here.

        Raises:
            DeliveryError: it is no proposal, belongs to another state, or another proposal waits here.
        """
        with self.exclusive():
            state = self.state()
            theirs = read_proposal(path)
            theirs.require(state)
            ours = self.waiting(state)
            if ours is None:
                ours = theirs
            elif {role: m.signed for role, m in ours.roles.items()} != {r: m.signed for r, m in theirs.roles.items()}:
                raise DeliveryError(f"{path}: another proposal waits here; publish or discard it first")
            for role, _, delegator in demands(state, ours):
                valid = check(delegator, role, theirs.roles[role]).signed
                ours.roles[role].signatures.update({keyid: theirs.roles[role].signatures[keyid] for keyid in valid})
            self.staging.write(ours)
            return signatures(state, ours)

    def publish(self) -> bool:
        """Publish what waits, if enough people signed it; `False` when nothing waits.

        Channels that serve what is revoked fall back in the same moment: their canary ends, or the base runs alone.

        Raises:
            DeliveryError: signatures are missing, or a file is not the one that was signed.
        """
        with self.exclusive():
            state = self.state()
            waiting = self.waiting(state)
            if waiting is None:
                self.staging.clear()
                return False
            found = signatures(state, waiting)
            if not found.complete:
                raise DeliveryError(f"not published: {'; '.join(found.missing)}. Reviewers run `pocketloop cdn sign`")
            roles = waiting.unpublished(state)
            policies: list[ChannelPolicy] = []
            if stable := roles.get(STABLE):
                refuse_tricks(state.stable, stable)
                self._upload(added(state, stable))
                policies = self._withdrawn(stable)
            channels = self._channels(state, policies, roles.get(TARGETS))
            if channels is not None:
                roles[CHANNELS] = channels
            self.commit(state, roles, roles.pop(ROOT, None))
            self.staging.clear()
        return True

    def set_policy(self, policy: ChannelPolicy) -> None:
        """Say what a channel serves from now on; the same policy again changes nothing.

        Raises:
            DeliveryError: it names what is not approved for this adapter and base, or its generation does not rise.
        """
        with self.exclusive():
            state = self.state()
            current = self.policy(policy.adapter, policy.base_digest)
            if current == policy:
                return
            if current is not None and policy.generation <= current.generation:
                raise DeliveryError(
                    f"channel {policy.adapter} is at generation {current.generation}; a policy of generation "
                    f"{policy.generation} would be ignored by devices"
                )
            approved, waiting = approved_in(state.stable), self.waiting(state)
            leaving = revoked_in(waiting.roles[STABLE]) if waiting and STABLE in waiting.roles else {}
            for digest in filter(None, (policy.stable, policy.canary)):
                facts = approved.get(digest)
                if facts is None or (facts.adapter, facts.base_digest) != (policy.adapter, policy.base_digest):
                    raise DeliveryError(
                        f"{digest} is not approved for adapter {policy.adapter} on base {policy.base_digest[:12]}; "
                        "reviewers approve it first"
                    )
                if digest in leaving:
                    raise DeliveryError(f"{digest} is about to be revoked: {leaving[digest]}")
            channels = self._channels(state, [policy])
            self.commit(state, {CHANNELS: channels})

    def refresh(self, now: datetime | None = None) -> list[str]:
        """Sign again what expires within a third of its lifetime; returns what needs people, in words."""
        return upkeep.refresh(self, now or self.now())

    def rotate(self, name: str) -> Signatures:
        """Replace a key (`online`, `reviewer-2`), or all keys of `root` or `reviewers` as the configuration says.

        Publishes at once when all signatures that this needs can be given here, and leaves a proposal otherwise.
        """
        return ceremony.rotate(self, name)

    def collect_garbage(
        self,
        keep: int,
        *,
        grace: timedelta = timedelta(days=1),
        protect: Collection[str] = (),
        now: datetime | None = None,
    ) -> list[str]:
        """Propose to retire old adapters, and delete the files that nothing named for `grace`; returns their names.

        Args:
            keep: adapters of each channel that stay, newest first, beside what it serves.
            grace: how long a device may take for one sync.
            protect: digests that stay whatever their age, such as those a running rollout may go back to.
        """
        return upkeep.collect_garbage(self, keep, grace, frozenset(protect), now or self.now())

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock of publishers of this home.

        Raises:
            DeliveryError: another process holds it for too long.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            with self._lock:
                yield
        except Timeout:
            raise DeliveryError(f"another process publishes ({self._lock.lock_file} is held); try again") from None

    def state(self) -> State:
        """The published state, verified."""
        waiting = self.staging.read()
        self._known = read_state(
            self.storage,
            self.memory.trusted(),
            self._known,
            rotating=waiting is not None and ROOT in waiting.roles,
            lowest=self.memory.lowest(),
        )
        return self._known

    def waiting(self, state: State) -> Waiting | None:
        """What waits; `None` when nothing does, or all of it is published.

        Raises:
            DeliveryError: it was made from another state than `state`.
        """
        waiting = self.staging.read()
        if waiting is None or not waiting.unpublished(state):
            return None
        waiting.require(state)
        return waiting

    def draft(self, state: State, waiting: Waiting, role: str) -> Metadata:
        """The next version of a role in `waiting`, its signatures dropped, ready to be changed."""
        current = state.role(role).signed.version
        expires = expiry(role, self.config.expiry_days, self.now())
        if role in waiting.roles:
            waiting.roles[role] = successor(waiting.roles[role], waiting.roles[role].signed.version, expires)
        else:
            version = current + 1 if role == ROOT else self.committer.free_version(role, current)
            waiting.base[role] = current
            waiting.roles[role] = successor(state.role(role), version, expires)
        return waiting.roles[role]

    def commit(
        self, state: State, roles: dict[str, Metadata], root: Metadata | None = None, snapshot: bool = True
    ) -> None:
        """Publish signed metadata with a new snapshot and timestamp."""
        self.memory.remember(self.committer.commit(state, self.now(), roles, root, snapshot))

    @contextmanager
    def _proposing(self) -> Iterator[tuple[Waiting, Metadata]]:
        with self.exclusive():
            state = self.state()
            waiting = self.waiting(state) or Waiting()
            yield waiting, self.draft(state, waiting, STABLE)

    def _add(self, waiting: Waiting, stable: Metadata, targets: list[TargetFile]) -> Proposal:
        known = stable.signed.targets
        for target in targets:
            if target.path in known and known[target.path] != target:
                raise DeliveryError(
                    f"{target.path} is approved or proposed already, with other facts: {known[target.path].custom}; "
                    "an approved file and its facts never change"
                )
        if all(target.path in known for target in targets):
            return self.proposal()
        known.update({target.path: target for target in targets})
        return self._propose(waiting)

    def _propose(self, waiting: Waiting) -> Proposal:
        state = self.state()
        refuse_tricks(state.stable, waiting.roles[STABLE])
        self.staging.write(waiting)
        return describe(state, waiting)

    def _upload(self, targets: list[TargetFile]) -> None:
        for target in targets:
            name, file = published_name(target), self.staging.file(target)
            if self.storage.size(name) == target.length:
                continue  # its name is its sha256, and files appear whole
            if not file.is_file():
                raise DeliveryError(f"{target.path}: the file is not on this machine; publish where it was proposed")
            if sha256_file(file) != target.hashes["sha256"]:
                raise DeliveryError(f"{file} was changed after it was proposed; discard the proposal, propose it again")
            self.storage.put_file(name, file)

    def _withdrawn(self, stable: Metadata) -> list[ChannelPolicy]:
        """New policies of the channels that serve what `stable` no longer approves."""
        approved, revoked = approved_in(stable), revoked_in(stable)
        policies: list[ChannelPolicy] = []
        for policy in self.policies():
            gone = {digest for digest in (policy.stable, policy.canary) if digest and digest not in approved}
            if kept := gone - set(revoked):
                raise DeliveryError(
                    f"channel {policy.adapter} serves {kept.pop()}, which the proposal retires; discard it"
                )
            if gone:
                update: dict[str, object] = {"generation": policy.generation + 1, "updated": self.now()}
                if policy.canary in gone:
                    update |= {"canary": None, "canary_ppm": 0}
                if policy.stable in gone:
                    update |= {"stable": None}
                policies.append(policy.model_copy(update=update))
        return policies

    def _channels(
        self, state: State, policies: list[ChannelPolicy], targets: Metadata | None = None
    ) -> Metadata | None:
        """The next version of `channels` with these policies, signed as `targets` says; `None` when nothing changes."""
        if not policies and (targets is None or check(targets.signed, CHANNELS, state.channels)):
            return None
        version = self.committer.free_version(CHANNELS, state.channels.signed.version)
        channels = successor(state.channels, version, expiry(CHANNELS, self.config.expiry_days, self.now()))
        for policy in policies:
            data = canonical_json(policy.model_dump(by_alias=True, mode="json")).encode()
            path = policy_target(policy.adapter, policy.base_digest)
            target = TargetFile.from_data(path, data, ["sha256"])
            self.storage.put(published_name(target), data)
            channels.signed.targets[path] = target
        return self.committer.sign_channels(channels, targets or state.targets)

    def _read_policy(self, target: TargetFile) -> ChannelPolicy:
        name = published_name(target)
        if name not in self._policies:
            try:
                data = self.storage.get(name)
                target.verify_length_and_hashes(data)
                self._policies[name] = ChannelPolicy.model_validate_json(data)
            except (FileNotFoundError, LengthOrHashMismatchError, ValidationError) as error:
                raise DeliveryError(f"{self.storage.address}: policy {target.path} cannot be read: {error}") from None
        return self._policies[name]
