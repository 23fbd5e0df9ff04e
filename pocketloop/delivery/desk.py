"""What a reviewer's machine can do with the repository: read it, propose, see what waits, sign it.

None of this needs the online key: only `root.json`, from which everything is verified, and read access to the storage.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, TargetFile

from pocketloop.contracts.delivery import (
    STABLE,
    AdapterFacts,
    BaseFacts,
    Companion,
    adapter_target,
    base_target,
    companion_target,
)
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import atomic_file, canonical_json
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import DeliveryConfig
from pocketloop.delivery.approved import REVOKED, approved_in, bases_in, refuse_tricks, revoked_in
from pocketloop.delivery.commit import Committer, Memory
from pocketloop.delivery.keys import KeyRing
from pocketloop.delivery.metadata import ROOT, State, check, expiry, keys_of, read_state, sign, successor
from pocketloop.delivery.proposals import (
    NOTHING_TO_SIGN,
    Proposal,
    Signatures,
    Staging,
    Waiting,
    demands,
    describe,
    read_proposal,
    signatures,
)
from pocketloop.delivery.storage import Storage

_LOCK_SECONDS = 120
"""How long to wait for another process that publishes."""


class ReviewDesk:
    """The repository as people see it who approve what goes into it."""

    def __init__(self, config: DeliveryConfig, home: Home, now: Callable[[], datetime] | None = None) -> None:
        """Nothing is read yet; `now` stands in for the clock in tests."""
        self.config = config
        self.keys = KeyRing(home.keys)
        self.storage = Storage(config.repository or home.cdn)
        self.staging = Staging(home.staging / "proposal")
        self.memory = Memory(home.keys)
        self.committer = Committer(self.storage, self.keys, config)
        self.now = now or (lambda: datetime.now(UTC))
        self._home = home
        self._lock = FileLock(home.root / "cdn.lock", timeout=_LOCK_SECONDS)
        self._known: State | None = None

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
        """Sign what waits; when nothing does, there is nothing to sign and that is complete.

        Args:
            key: the name of a key, `NAME=ADDRESS` of an external signer, or the path of a PEM file; without it, every
                key on this machine that counts for what waits.

        Raises:
            DeliveryError: nothing waits for `key`, it does not count for it, or it says what must never be said.
        """
        with self.exclusive():
            state = self.state()
            waiting = self.waiting(state)
            if waiting is None:
                if key is not None:
                    raise DeliveryError("nothing waits for signatures")
                return NOTHING_TO_SIGN
            if STABLE in waiting.roles:
                refuse_tricks(state.stable, waiting.roles[STABLE])
            wanted: dict[str, dict[str, Key]] = {}
            for role, delegator in demands(state, waiting):
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
            for role, delegator in demands(state, ours):
                valid = check(delegator, role, theirs.roles[role]).signed
                ours.roles[role].signatures.update({keyid: theirs.roles[role].signatures[keyid] for keyid in valid})
            self.staging.write(ours)
            return signatures(state, ours)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock of publishers of this home.

        Raises:
            DeliveryError: another process holds it for too long.
        """
        self._home.root.mkdir(parents=True, exist_ok=True)
        try:
            with self._lock:
                yield
        except Timeout:
            raise DeliveryError(f"another process publishes ({self._lock.lock_file} is held); try again") from None

    def state(self) -> State:
        """The published state, verified."""

        def rotating() -> bool:
            waiting = self.staging.read()
            return waiting is not None and ROOT in waiting.roles

        self._known = read_state(self.storage, self.memory.trusted(), self._known, rotating, self.memory.lowest())
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
