"""What keeps the repository alive: signing again before metadata expires, and deleting what nothing names any more."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, BaseModel, ConfigDict
from tuf.api.metadata import Signed

from pocketloop.contracts.delivery import CHANNELS, STABLE, AdapterFacts, BaseFacts, ChannelPolicy
from pocketloop.contracts.files import write_json
from pocketloop.delivery.approved import approved_in, bases_in, revoked_in
from pocketloop.delivery.keys import key_name
from pocketloop.delivery.metadata import (
    ROOT,
    SNAPSHOTTED,
    TARGETS,
    State,
    expiry,
    file_name,
    keys_of,
    lifetime,
    successor,
)
from pocketloop.delivery.proposals import Proposal, Waiting, describe, published_name
from pocketloop.delivery.storage import TIMESTAMP

if TYPE_CHECKING:
    from pocketloop.delivery.repository import Repository

_PEOPLE = (ROOT, TARGETS, STABLE)
"""Roles that people sign."""
_ROLES = (*_PEOPLE, CHANNELS, "snapshot", "timestamp")


class _Status(BaseModel):
    model_config = ConfigDict(frozen=True)


class KeyStatus(_Status):
    """A key that counts, and whether this machine can sign with it."""

    name: str
    keyid: str
    here: bool


class RoleStatus(_Status):
    """A role as it is published."""

    role: str
    version: int
    expires: AwareDatetime
    due: bool
    """Whether it expires within a third of its lifetime."""
    threshold: int
    keys: list[KeyStatus]


class RepositoryStatus(_Status):
    """What `pocketloop cdn status` shows."""

    address: str
    roles: list[RoleStatus]
    adapters: dict[str, AdapterFacts]
    bases: dict[str, BaseFacts]
    revoked: dict[str, str]
    channels: list[ChannelPolicy]
    proposal: Proposal


def status(repository: "Repository") -> RepositoryStatus:
    """Roles with their versions, expiry and keys, what is approved and served, and what waits."""
    state = repository.state()
    roles: list[RoleStatus] = []
    due = _due(repository, state)
    for role in _ROLES:
        delegator, signed = state.delegator(role), state.role(role).signed
        keys = [
            KeyStatus(name=key_name(key), keyid=key.keyid, here=repository.keys.has(key))
            for key in keys_of(delegator, role)
        ]
        roles.append(
            RoleStatus(
                role=role,
                version=signed.version,
                expires=signed.expires,
                due=role in due,
                threshold=delegator.get_delegated_role(role).threshold,
                keys=sorted(keys, key=lambda key: key.name),
            )
        )
    return RepositoryStatus(
        address=repository.storage.address,
        roles=roles,
        adapters=approved_in(state.stable),
        bases=bases_in(state.stable),
        revoked=revoked_in(state.stable),
        channels=repository.policies(),
        proposal=describe(state, repository.waiting(state)),
    )


def refresh(repository: "Repository") -> list[str]:
    """Sign again what expires within a third of its lifetime; returns what needs people, in words.

    What people sign is renewed here only where enough of their keys are, and never together with a proposal of new
    content: that waits for somebody who looks at it.
    """
    with repository.exclusive():
        state = repository.state()
        waiting = repository.waiting(state)
        due = [role for role in _due(repository, state) if role in _PEOPLE]
        renewed = waiting or Waiting()
        if fresh := [role for role in due if role not in renewed.roles]:
            for role in fresh:
                repository.draft(state, renewed, role)
            repository.staging.write(renewed)
            if waiting is None and repository.sign().complete:
                repository.publish()
                state, due = repository.state(), []
        people = [_plea(role, state.role(role).signed, repository.now()) for role in due]
        online = set(_due(repository, state)) - set(_PEOPLE)
        if online:
            channels = {}
            if CHANNELS in online:
                version = repository.committer.free_version(CHANNELS, state.channels.signed.version)
                expires = expiry(CHANNELS, repository.config.expiry_days, repository.now())
                renewal = successor(state.channels, version, expires)
                channels[CHANNELS] = repository.committer.sign_channels(renewal, state.targets)
            repository.commit(state, channels, snapshot=online != {"timestamp"})
        return people


def collect_garbage(repository: "Repository", keep: int, grace: timedelta, protect: frozenset[str]) -> list[str]:
    """Propose to retire old adapters, and delete the files that nothing named for `grace`; returns their names.

    The age of a file says nothing about when it was last named, so the first run that finds it unnamed marks it, and a
    later one deletes it. Devices that began a sync before it became unnamed have finished by then.
    """
    now = repository.now()
    with repository.exclusive():
        state = repository.state()
        waiting = repository.waiting(state)
        if waiting is None and (old := _old_adapters(repository, state, keep, protect)):
            waiting = Waiting()
            stable = repository.draft(state, waiting, STABLE)
            for path in [path for path in stable.signed.targets if path.rpartition("/")[2].partition(".")[0] in old]:
                del stable.signed.targets[path]
            repository.staging.write(waiting)
        named = _named(state, waiting)
        marks = _read_marks(repository)
        unnamed = [
            name for name in repository.storage.names() if _is_ours(name) and name.removesuffix(".gz") not in named
        ]
        since = {name: marks.get(name, now) for name in unnamed}
        deleted = [name for name in unnamed if now - since[name] >= grace]
        for name in deleted:
            repository.storage.delete(name)
        left = {name: at.isoformat() for name, at in since.items() if name not in set(deleted)}
        write_json(repository.marks, left)
        return deleted


def _plea(role: str, signed: Signed, now: datetime) -> str:
    when = "has expired" if signed.is_expired(now) else "expires"
    return (
        f"{role} {when} on {signed.expires:%Y-%m-%d}: its renewal waits for signatures "
        "(`pocketloop cdn proposal`, `pocketloop cdn sign`)"
    )


def _due(repository: "Repository", state: State) -> list[str]:
    days, now = repository.config.expiry_days, repository.now()
    return [role for role in _ROLES if state.role(role).signed.expires - now < lifetime(role, days) / 3]


def _old_adapters(repository: "Repository", state: State, keep: int, protect: frozenset[str]) -> set[str]:
    served = {digest for policy in repository.policies() for digest in (policy.stable, policy.canary)}
    channels: dict[tuple[str, str], list[str]] = {}
    approved = approved_in(state.stable)
    for digest, facts in sorted(approved.items(), key=lambda item: _age(item[1]), reverse=True):
        channels.setdefault((facts.adapter, facts.base_digest), []).append(digest)
    return {digest for digests in channels.values() for digest in digests[keep:]} - served - protect


def _age(facts: AdapterFacts) -> tuple[int, int, str]:
    """Sorts older adapters first: MLflow counts released versions and candidates upwards."""
    released, version = (int(text) if text.isdigit() else -1 for text in (facts.released, facts.version))
    return released, version, facts.version


def _named(state: State, waiting: Waiting | None) -> set[str]:
    names = {TIMESTAMP, file_name("snapshot", state.snapshot.signed.version)}
    names |= {file_name(ROOT, version) for version in range(1, state.root.signed.version + 1)}
    published = [(role, state.role(role)) for role in SNAPSHOTTED]
    for role, metadata in [*published, *(waiting.roles.items() if waiting else ())]:
        names.add(file_name(role, metadata.signed.version))
        if role != ROOT:
            names |= {published_name(target) for target in metadata.signed.targets.values()}
    return names


def _is_ours(name: str) -> bool:
    return name.startswith(("metadata/", f"targets/{STABLE}/", f"targets/{CHANNELS}/"))


def _read_marks(repository: "Repository") -> dict[str, datetime]:
    try:
        found = json.loads(repository.marks.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(name): datetime.fromisoformat(at) for name, at in found.items()}
