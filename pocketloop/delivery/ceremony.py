"""Where keys begin and end: the ceremony that makes the repository, and the replacement of keys later."""

from typing import TYPE_CHECKING

from securesystemslib.signer import Key

from pocketloop.contracts.delivery import CHANNELS, STABLE
from pocketloop.contracts.errors import DeliveryError
from pocketloop.delivery.keys import key_name, kind_of, next_name
from pocketloop.delivery.metadata import ROOT, TARGETS, first_metadata, keys_of, sign
from pocketloop.delivery.proposals import Signatures, Waiting, signatures
from pocketloop.delivery.storage import TIMESTAMP

if TYPE_CHECKING:
    from pocketloop.delivery.repository import Repository

_KINDS = {"root": "root", "reviewers": "reviewer", "online": "online"}
"""What an operator may name instead of one key: all keys of a kind."""
_HELD = {
    "root": [(ROOT, ROOT), (ROOT, TARGETS)],
    "reviewer": [(TARGETS, STABLE)],
    "online": [(ROOT, "snapshot"), (ROOT, "timestamp"), (TARGETS, CHANNELS)],
}
"""Which roles the keys of each kind sign, and whose metadata says so."""
_DRAFTED = {"root": [ROOT, TARGETS], "reviewer": [TARGETS, STABLE], "online": [ROOT, TARGETS]}
"""What must be signed anew: who names the keys, and what the new keys have to vouch for from now on."""


def begin(repository: "Repository") -> None:
    """Make or take in the keys, and write version 1 of everything; see `Repository.create`.

    A ceremony that was killed before it ended is held again with the keys that it made.
    """
    keys, config, now = repository.keys, repository.config, repository.now()
    with repository.exclusive():
        if repository.storage.exists(TIMESTAMP):
            raise DeliveryError(f"{repository.storage.address} holds a repository already; see `pocketloop cdn status`")
        if repository.memory.lowest():
            raise DeliveryError(
                f"version {repository.memory.lowest()} of a repository was published from this machine, but "
                f"{repository.storage.address} is empty: devices refuse one that starts again. Restore it from a "
                f"backup, or move {keys.folder} away to make one that has nothing to do with it"
            )
        roots = [keys.public_or_new(f"root-{number + 1}") for number in range(config.root.keys)]
        reviewers = [keys.public_or_new(f"reviewer-{number + 1}") for number in range(config.reviewers.keys)]
        online = keys.public_or_new("online")
        first = first_metadata(config, roots, reviewers, online, now)
        for role, holders, threshold in (
            (ROOT, roots, config.root.threshold),
            (TARGETS, roots, config.root.threshold),
            (STABLE, reviewers, config.reviewers.threshold),
            (CHANNELS, [online], 1),
        ):
            signers = [signer for key in holders if (signer := keys.signer(key)) is not None]
            if len(signers) < threshold:
                names = ", ".join(key_name(key) for key in holders)
                raise DeliveryError(
                    f"the first {role} must be signed here by {threshold} of {names}, but {len(signers)} can sign: name"
                    f" their signers in {keys.folder / 'signers.json'}, or make keys here and move them away afterwards"
                )
            sign(first[role], signers)
        repository.memory.remember(repository.committer.begin(first, now, repository.memory))


def rotate(repository: "Repository", name: str) -> Signatures:
    """Replace a key, or all keys of a role; see `Repository.rotate`."""
    with repository.exclusive():
        state = repository.state()
        before = repository.waiting(state)
        waiting = before or Waiting()
        kind = _KINDS.get(name) or kind_of(name)
        drafts = {role: repository.draft(state, waiting, role) for role in _DRAFTED[kind]}
        held = {key_name(key): key for holder, role in _HELD[kind] for key in keys_of(drafts[holder].signed, role)}
        leaving = held if name in _KINDS else {name: held[name]} if name in held else {}
        if not leaving:
            raise DeliveryError(f"no role has a key {name!r}: expected {', '.join([*sorted(_KINDS), *sorted(held)])}")
        counts = {"root": repository.config.root, "reviewer": repository.config.reviewers}
        whole = counts.get(kind) if name in _KINDS else None
        arriving: list[Key] = []
        for _ in range(whole.keys if whole else len(leaving)):
            key = repository.keys.public_or_new(next_name(kind, [*held, *map(key_name, arriving)]))
            if any(key.keyid == other.keyid for other in [*held.values(), *arriving]):
                raise DeliveryError(f"{key_name(key)} is the same key as one that is or was used; make another")
            arriving.append(key)
        for holder, role in _HELD[kind]:
            delegator = drafts[holder].signed
            for key in arriving:
                delegator.add_key(key, role)
            for key in leaving.values():
                delegator.revoke_key(key.keyid, role)
            if whole:
                delegator.get_delegated_role(role).threshold = whole.threshold
        repository.staging.write(waiting)
        if before is not None:  # somebody's proposal waits too: nobody signs that without having looked at it
            return signatures(state, waiting)
        found = repository.sign()
        if found.complete:
            repository.publish()
        return found
