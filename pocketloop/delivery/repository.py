"""The signed repository: reviewers approve adapters in it, the online key says which of them each channel serves.

Publishing never changes a file that devices may be reading. It writes the new targets, then the metadata that names
them, then a snapshot of that metadata, and `timestamp.json` last: until that one write, which is atomic, every device
sees the old state, and after it the new one. What a killed publisher leaves behind is named by nothing; the next run
takes other version numbers and finishes.
"""

import copy
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, TargetFile

from pocketloop.contracts.delivery import CHANNELS, STABLE, ChannelPolicy, policy_target
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import canonical_json, sha256_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import DeliveryConfig
from pocketloop.delivery import ceremony, upkeep
from pocketloop.delivery.approved import approved_in, refuse_tricks, revoked_in
from pocketloop.delivery.desk import ReviewDesk
from pocketloop.delivery.metadata import ROOT, TARGETS, State, check, expiry, successor
from pocketloop.delivery.proposals import Signatures, added, published_name, signatures
from pocketloop.delivery.storage import TIMESTAMP


class Repository(ReviewDesk):
    """The publishing side, which holds the online key; everything of `ReviewDesk` works here too."""

    def __init__(self, config: DeliveryConfig, home: Home, now: Callable[[], datetime] | None = None) -> None:
        """Use `open` or `create`; `now` stands in for the clock in tests."""
        super().__init__(config, home, now)
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

    def policies(self) -> list[ChannelPolicy]:
        """What each channel serves now, in the order of their names."""
        targets = self.state().channels.signed.targets
        return [self._read_policy(target) for _, target in sorted(targets.items())]

    def policy(self, adapter: str, base_digest: str) -> ChannelPolicy | None:
        """What one channel serves now; `None` when there is no such channel."""
        target = self.state().channels.signed.targets.get(policy_target(adapter, base_digest))
        return None if target is None else self._read_policy(target)

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
        """Say what a channel serves from now on; the same again changes nothing.

        Raises:
            DeliveryError: it names what is not approved for this adapter and base, or its generation does not rise.
        """
        with self.exclusive():
            state = self.state()
            current = self.policy(policy.adapter, policy.base_digest)
            if current is not None and current.model_copy(update={"updated": policy.updated}) == policy:
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
                # What is stable now may stay so: a canary must be taken back even while a revocation waits.
                if digest in leaving and not (current and digest == policy.stable == current.stable):
                    raise DeliveryError(f"{digest} is about to be revoked: {leaving[digest]}")
            channels = self._channels(state, [policy])
            self.commit(state, {CHANNELS: channels})

    def refresh(self, now: datetime | None = None) -> list[str]:
        """Sign again what expires within a third of its lifetime; returns what needs people, in words."""
        return upkeep.refresh(self.at(now))

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
        return upkeep.collect_garbage(self.at(now), keep, grace, frozenset(protect))

    def status(self) -> upkeep.RepositoryStatus:
        """Roles with their versions, expiry and keys, what is approved and served, and what waits."""
        return upkeep.status(self)

    def at(self, now: datetime | None) -> "Repository":
        """The same repository with the clock stopped at `now`; itself without one."""
        if now is None:
            return self
        then = copy.copy(self)
        then.now = lambda: now
        return then

    @property
    def marks(self) -> Path:
        """Where garbage collection notes since when nothing names a file."""
        return self._home.staging / "garbage.json"

    def commit(
        self, state: State, roles: dict[str, Metadata], root: Metadata | None = None, snapshot: bool = True
    ) -> None:
        """Publish signed metadata with a new snapshot and timestamp."""
        self.memory.remember(self.committer.commit(state, self.now(), roles, root, snapshot))

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
        for policy in self._readable(self.state().channels).values():
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
        if targets is not None:  # another online key vouches for these policies now: not for what a thief made of them
            kept = self._readable(channels)
            channels.signed.targets = {path: target for path, target in channels.signed.targets.items() if path in kept}
        for policy in policies:
            data = canonical_json(policy.model_dump(by_alias=True, mode="json")).encode()
            path = policy_target(policy.adapter, policy.base_digest)
            target = TargetFile.from_data(path, data, ["sha256"])
            self.storage.put(published_name(target), data)
            channels.signed.targets[path] = target
        return self.committer.sign_channels(channels, targets or state.targets)

    def _readable(self, channels: Metadata) -> dict[str, ChannelPolicy]:
        """The policies that say something and stand under their own names; devices heed no others."""
        found: dict[str, ChannelPolicy] = {}
        for path, target in channels.signed.targets.items():
            with suppress(DeliveryError):
                policy = self._read_policy(target)
                if path == policy_target(policy.adapter, policy.base_digest):
                    found[path] = policy
        return found

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
