"""Where keys begin and end: the ceremony that makes the repository, and the replacement of keys later."""

from typing import TYPE_CHECKING

from pocketloop.contracts.delivery import CHANNELS, STABLE
from pocketloop.contracts.errors import DeliveryError
from pocketloop.delivery.keys import key_name
from pocketloop.delivery.metadata import ROOT, TARGETS, first_metadata, sign
from pocketloop.delivery.storage import TIMESTAMP

if TYPE_CHECKING:
    from pocketloop.delivery.proposals import Signatures
    from pocketloop.delivery.repository import Repository


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


def rotate(repository: "Repository", name: str) -> "Signatures":
    """Replace a key; see `Repository.rotate`."""
    raise NotImplementedError
