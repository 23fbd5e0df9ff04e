"""Records of rollouts, and how a record and its channel's policy change together.

A move first writes the record as it will be beside the record (`ID.next.json`), then sets the policy, then renames.
Whoever comes next finds no such file, or one whose policy is in force (the move is finished), or one whose policy is
not (the move never happened, and is decided anew). A rollout's first record is written before its policy, and the next
look sets what is missing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from pocketloop.contracts.delivery import AdapterFacts, ChannelPolicy
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import atomic_file, write_json
from pocketloop.contracts.rollout import Decision, Rollout

_LOCK_SECONDS = 120


class Channels(Protocol):
    """What a rollout needs of the signed repository."""

    def policy(self, adapter: str, base_digest: str) -> ChannelPolicy | None:
        """What a channel serves now."""

    def set_policy(self, policy: ChannelPolicy) -> None:
        """Serve this from now on."""

    def approved(self) -> Mapping[str, AdapterFacts]:
        """Facts of each approved adapter, by the sha256 of its file."""


class RolloutStore:
    """Records as JSON files in one folder (`Home.rollouts`), replaced whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Rollout]:
        """Every rollout, oldest first."""
        records = (self._read(path) for path in self.folder.glob("*.json") if not path.name.endswith(".next.json"))
        return sorted(records, key=lambda rollout: (rollout.started, rollout.rollout_id))

    def running(self, adapter: str, base_digest: str) -> Rollout | None:
        """The rollout that runs on a channel, if one does."""
        channel = (adapter, base_digest)
        return next((r for r in self.all() if r.state == "running" and (r.adapter, r.base_digest) == channel), None)

    def load(self, rollout_id: str) -> Rollout:
        """One record.

        Raises:
            DeliveryError: there is none, or it is damaged.
        """
        return self._read(self._path(rollout_id))

    def save(self, rollout: Rollout) -> None:
        """Write a record."""
        write_json(self._path(rollout.rollout_id), rollout)

    def untold(self, rollout: Rollout) -> list[Decision]:
        """Decisions that nobody was told of yet; a hold for the same reason as before is not told at all."""
        marker = self._told(rollout.rollout_id)
        told = datetime.fromisoformat(marker.read_text(encoding="utf-8")) if marker.is_file() else None
        pairs = zip([None, *rollout.decisions], rollout.decisions, strict=False)
        return [
            decision
            for before, decision in pairs
            if (told is None or decision.at > told)
            and not (before and decision.action == before.action == "hold" and decision.why == before.why)
        ]

    def mark_told(self, rollout: Rollout) -> None:
        """Remember that people know of every decision up to the last."""
        with atomic_file(self._told(rollout.rollout_id)) as temporary:
            temporary.write_text(rollout.decisions[-1].at.isoformat(), encoding="utf-8")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes out.

        Raises:
            DeliveryError: another one has been busy for two minutes.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout:
            raise DeliveryError(f"{self.folder}: another process is deciding; try again when it is done") from None

    def move(self, channels: Channels, rollout: Rollout, now: datetime) -> None:
        """Put the policy of this record in force, and the record with it."""
        intended = self._next(rollout.rollout_id)
        write_json(intended, rollout)
        try:
            enforce(channels, rollout, now)
        except DeliveryError:
            intended.unlink()
            raise
        intended.replace(self._path(rollout.rollout_id))

    def settle(self, channels: Channels, rollout_id: str) -> Rollout:
        """The record, once a move that was cut is finished or forgotten."""
        intended = self._next(rollout_id)
        if intended.is_file():
            following = self._read(intended)
            current = channels.policy(following.adapter, following.base_digest)
            if current is not None and _same(current, _wanted(channels, following, current.updated, 1)):
                intended.replace(self._path(rollout_id))
            else:
                intended.unlink()
        return self.load(rollout_id)

    def _told(self, rollout_id: str) -> Path:
        return self.folder / f"{rollout_id}.told"

    def _path(self, rollout_id: str) -> Path:
        return self.folder / f"{rollout_id}.json"

    def _next(self, rollout_id: str) -> Path:
        return self.folder / f"{rollout_id}.next.json"

    def _read(self, path: Path) -> Rollout:
        try:
            return Rollout.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DeliveryError(f"no rollout {path.stem} in {self.folder}") from None
        except ValidationError as error:
            raise DeliveryError(f"{path}: not a rollout's record ({error.error_count()} problems)") from None


def enforce(channels: Channels, rollout: Rollout, now: datetime) -> None:
    """Make the channel serve what the record says; nothing happens when it does.

    A previous file that was revoked since is replaced by the base alone.

    Raises:
        DeliveryError: a running rollout's channel serves a file that is not its own.
    """
    current = channels.policy(rollout.adapter, rollout.base_digest)
    wanted = _wanted(channels, rollout, now, current.generation + 1 if current else 1)
    if current is not None and _same(current, wanted):
        return
    own = (rollout.previous, rollout.digest, None)
    if rollout.state == "running" and current and (current.stable not in own or current.canary not in own):
        raise DeliveryError(
            f"channel {rollout.adapter} was changed while rollout {rollout.rollout_id} ran: "
            f"`pocketloop rollback {rollout.adapter}` ends it"
        )
    channels.set_policy(wanted)


def _wanted(channels: Channels, rollout: Rollout, now: datetime, generation: int) -> ChannelPolicy:
    running = rollout.state == "running"
    stable = rollout.digest if rollout.state == "complete" else rollout.previous
    return ChannelPolicy(
        adapter=rollout.adapter,
        base_digest=rollout.base_digest,
        generation=generation,
        stable=stable if stable in channels.approved() else None,
        canary=rollout.digest if running else None,
        canary_ppm=rollout.ladder.rungs[rollout.rung].ppm if running else 0,
        salt=rollout.rollout_id if running else "",
        updated=now,
    )


def _same(one: ChannelPolicy, other: ChannelPolicy) -> bool:
    return one == other.model_copy(update={"generation": one.generation, "updated": one.updated})
