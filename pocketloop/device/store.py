"""What a device keeps on disk: adapter files named by their digest, and one `state.json` that says which is active.

    FOLDER/
      state.json            replaced atomically; the only thing that makes a file active
      files/DIGEST.gguf     adapter files: the active one and the previous one, never changed once they are there
      files/DIGEST.json     their companions
      files/*.part          downloads that a later sync goes on with
      metadata/             verified TUF metadata

Two locks: `sync.lock` is held by a whole sync, so that two processes never download into the same files; `state.lock`
only for the moment of reading and replacing `state.json`, so that starting the app never waits for a download.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pocketloop.contracts.delivery import AdapterFacts, Arm, ChannelPolicy, Companion, Digest
from pocketloop.contracts.files import write_json
from pocketloop.contracts.parts import Name
from pocketloop.device.errors import DeviceBusy, StorageFault, storage_fault

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_KEEP_BAD = 32
_LOCK_SECONDS = 10
_log = logging.getLogger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Installed(_Part):
    """An adapter file on this device and the facts that reviewers signed about it."""

    digest: Digest
    facts: AdapterFacts
    installed_at: AwareDatetime


class Attempt(_Part):
    """How the last sync of a channel ended: an action, or the name of the error."""

    at: AwareDatetime
    outcome: str
    reason: str


class Slot(_Part):
    """The state of one adapter on this device."""

    base_digest: Digest
    """The base for which everything below was chosen; another base on the phone empties the slot."""
    active: Installed | None = None
    previous: Installed | None = None
    bad: dict[Digest, str] = Field(default_factory=dict)
    """Digests that did not work on this device, and why; they are not tried again here."""
    policy: ChannelPolicy | None = None
    """The newest channel policy that was verified here."""
    policy_sha256: str = ""
    """sha256 of its file, so that the same one is not fetched again."""
    arm: Arm = "stable"
    starts: int = 0
    """Starts with the active file since it last proved healthy."""
    reverts: dict[Digest, int] = Field(default_factory=dict)
    """Times that the device gave a file up by itself since telemetry last asked (see `take_reverts`)."""
    last: Attempt | None = None

    def count_revert(self, digest: str) -> None:
        """The device gave this file up by itself."""
        self.reverts[digest] = self.reverts.get(digest, 0) + 1

    def mark_bad(self, digest: str, why: str) -> None:
        """Remember that a digest does not work here; the oldest of many are forgotten."""
        self.bad.pop(digest, None)
        self.bad[digest] = why
        while len(self.bad) > _KEEP_BAD:
            del self.bad[next(iter(self.bad))]


class State(_Part):
    """`state.json`."""

    schema_: Literal["device/1"] = Field(alias="schema", default="device/1")
    newest_time: AwareDatetime = LONG_AGO
    """The newest time that this device has verified metadata at: its clock is never believed to be before it."""
    adapters: dict[Name, Slot] = Field(default_factory=dict)


class Store:
    """A device's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.metadata = folder / "metadata"

    def adapter_path(self, digest: str) -> Path:
        """Where the adapter file with this digest lies, or would."""
        return self.files / f"{digest}.gguf"

    def companion_path(self, digest: str) -> Path:
        """Where the companion of the adapter file with this digest lies, or would."""
        return self.files / f"{digest}.json"

    def read(self) -> State:
        """The state; empty when there is none.

        A damaged file is set aside and an empty state returned: files on disk are found again by their digest, and the
        memory against rolled back metadata lies elsewhere.
        """
        path = self.folder / "state.json"
        try:
            return State.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return State()
        except ValidationError:
            _log.warning("%s is damaged: starting with an empty state", path)
            path.replace(path.with_suffix(".damaged"))
            return State()

    @contextmanager
    def change(self) -> Iterator[State]:
        """Read the state, let the caller change it, and replace the file; nothing is written when the caller raises.

        Raises:
            StorageFault: the folder cannot be written, or another process holds the state for too long.
            LowDisk: there is no space.
        """
        with self._held("state.lock", _LOCK_SECONDS):
            state = self.read()
            before = state.model_copy(deep=True)
            yield state
            if state != before:
                path = self.folder / "state.json"
                try:
                    write_json(path, state.model_dump(mode="json", by_alias=True))
                except OSError as error:
                    raise storage_fault(error, path) from None

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """Hold the lock of a whole sync.

        Raises:
            DeviceBusy: another process holds it.
            StorageFault: the folder cannot be written.
        """
        with self._held("sync.lock", 0):
            yield

    @contextmanager
    def _held(self, name: str, seconds: float) -> Iterator[None]:
        lock = FileLock(self.folder / name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=seconds)
        except Timeout:
            raise DeviceBusy(f"another process holds {self.folder / name}; try again when it has finished") from None
        except OSError as error:
            raise storage_fault(error, self.folder / name) from None
        try:
            yield
        finally:
            lock.release()

    def companion(self, digest: str) -> Companion:
        """The companion of an installed adapter file.

        Raises:
            StorageFault: it is gone or damaged.
        """
        path = self.companion_path(digest)
        try:
            return Companion.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise StorageFault(f"{path}: {error}; the next sync fetches it again") from None

    def tidy(self) -> None:
        """Remove files that no adapter has as its active or previous one, and downloads given up.

        Call it only while holding `syncing`.
        """
        slots = self.read().adapters.values()
        kept = {item.digest for slot in slots for item in (slot.active, slot.previous) if item}
        coming = {digest for slot in slots if slot.policy for digest in (slot.policy.stable, slot.policy.canary)}
        for path in self.files.glob("*"):
            digest = path.name.partition(".")[0]
            if digest not in kept and not (digest in coming and path.suffix in {".part", ".etag"}):
                path.unlink(missing_ok=True)
