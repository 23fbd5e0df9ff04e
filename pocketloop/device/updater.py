"""The verified view of the repository that one sync works with.

python-tuf's client does the workflow of the specification: root rotation, then timestamp, snapshot, targets. On top of
it this module fixes which role may say what. A lookup does not walk delegations: adapters and their facts come from the
role `stable` as the top-level targets role delegates it, policies from `channels` likewise, and nothing that those two
delegate further is ever read. (A walk would load whatever `channels` delegates, so that a stolen online key could
introduce a role of its own under the name `stable`.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig

from pocketloop.contracts.delivery import (
    CHANNELS,
    STABLE,
    AdapterFacts,
    Companion,
    adapter_target,
    companion_target,
    policy_target,
)
from pocketloop.device.errors import (
    FactsInvalid,
    MetadataExpired,
    MetadataInvalid,
    MetadataMixed,
    MetadataRolledBack,
    NotApproved,
    NotPublished,
    Revoked,
    RuntimeTooOld,
    ServerFault,
    SignatureMissing,
    WrongBase,
    WrongRole,
    storage_fault,
)
from pocketloop.device.fetching import Fetcher

MAX_COMPANION = 1 << 20
_CONFIG = UpdaterConfig(root_max_length=200_000, max_root_rotations=64)


class VerifiedRepository(Updater):
    """Metadata of one moment, verified. Make one for each sync.

    Args:
        folder: where verified metadata is kept between syncs.
        base_url: address of the repository, without `metadata/` and `targets/`.
        root: the root metadata that was shipped with the app.
        now: aware; what expiry is judged by.

    Raises:
        DeviceError: one of the errors of `refresh`.
    """

    def __init__(self, folder: Path, base_url: str, fetcher: Fetcher, root: bytes, now: datetime) -> None:
        self.url = base_url.rstrip("/")
        self.now = now
        self._stage = ""
        folder.mkdir(parents=True, exist_ok=True)
        with self._named(folder):
            super().__init__(str(folder), f"{self.url}/metadata/", fetcher=fetcher, config=_CONFIG, bootstrap=root)
            self._trusted_set.reference_time = now
            self.refresh()
            self.stable = self._role(STABLE)
            self.channels = self._role(CHANNELS)

    @property
    def revoked(self) -> dict[str, str]:
        """Digests whose approval was taken back, with the reasons; reviewers sign this list."""
        listed = self.stable.unrecognized_fields.get("revoked")
        return {str(key): str(value) for key, value in listed.items()} if isinstance(listed, dict) else {}

    def policy(self, adapter: str, base_digest: str) -> TargetFile | None:
        """The signed description of a channel's policy file."""
        return self.channels.targets.get(policy_target(adapter, base_digest))

    def approved(self, adapter: str, digest: str) -> bool:
        """Whether reviewers approve this adapter file now."""
        return adapter_target(adapter, digest) in self.stable.targets and digest not in self.revoked

    def files(self, adapter: str, digest: str) -> tuple[TargetFile, TargetFile]:
        """The signed descriptions of an adapter file and its companion.

        Raises:
            Revoked, NotApproved: the reviewers' role does not sign them.
            FactsInvalid: what it signs contradicts itself.
        """
        if digest in self.revoked:
            raise Revoked(f"{adapter} {digest[:12]} was revoked: {self.revoked[digest]}")
        found = self.stable.targets.get(adapter_target(adapter, digest))
        companion = self.stable.targets.get(companion_target(adapter, digest))
        if found is None or companion is None:
            raise NotApproved(f"{adapter} {digest[:12]} is not signed by the reviewers' role {STABLE!r}")
        if found.hashes.get("sha256") != digest or "sha256" not in companion.hashes or companion.length > MAX_COMPANION:
            raise FactsInvalid(f"{found.path}: name, hash and companion do not fit together")
        return found, companion

    def facts(self, target: TargetFile, adapter: str, base_digest: str, runtime: int) -> AdapterFacts:
        """The signed facts of an adapter file, if they fit this device.

        Raises:
            FactsInvalid, WrongBase, RuntimeTooOld: they do not.
        """
        try:
            facts = AdapterFacts.model_validate(target.custom)
        except ValidationError as error:
            raise FactsInvalid(f"{target.path}: {error.error_count()} of its facts cannot be read here") from None
        if facts.adapter != adapter:
            raise FactsInvalid(f"{target.path}: its facts are those of adapter {facts.adapter!r}")
        if facts.base_digest != base_digest:
            raise WrongBase(
                f"{target.path} belongs to the base {facts.base_digest[:12]}; this device has {base_digest[:12]}"
            )
        if facts.min_runtime > runtime:
            raise RuntimeTooOld(f"{target.path} needs runtime {facts.min_runtime}; this app has {runtime}: update it")
        return facts

    def target_url(self, target: TargetFile) -> str:
        """Where a target's file lies: under its hash, because snapshots are consistent."""
        folder, _, name = target.path.rpartition("/")
        return f"{self.url}/targets/{folder}/{target.hashes['sha256']}.{name}"

    def _role(self, role: str) -> Targets:
        top = self._load_targets(Targets.type, "root")
        known = role in (top.delegations.roles or {}) if top.delegations else False
        if not self._trusted_set.root.consistent_snapshot or not known:
            raise MetadataInvalid(
                f"{self.url}: no consistent snapshots, or no role {role!r}: another kind of repository"
            )
        targets = self._load_targets(role, Targets.type)
        foreign = next((path for path in targets.targets if not path.startswith(f"{role}/")), None)
        if foreign is not None:
            raise WrongRole(f"role {role!r} signs {foreign[:80]!r}, which it may not: its key may be stolen")
        return targets

    def _load_timestamp(self) -> None:
        self._stage = Timestamp.type
        super()._load_timestamp()

    def _load_snapshot(self) -> None:
        self._stage = Snapshot.type
        super()._load_snapshot()

    def _load_targets(self, role: str, parent_role: str) -> Targets:
        self._stage = role
        return super()._load_targets(role, parent_role)

    @contextmanager
    def _named(self, folder: Path) -> Iterator[None]:
        """Call what goes wrong by this client's names."""
        try:
            yield
        except ExpiredMetadataError:
            raise MetadataExpired(self._expired()) from None
        except UnsignedMetadataError:
            raise SignatureMissing(f"{self._stage}: too few valid signatures of the role's keys") from None
        except BadVersionNumberError as error:
            older = self._stage in {Timestamp.type, Snapshot.type}
            raise (MetadataRolledBack if older else MetadataMixed)(f"{self._stage}: {error}") from None
        except LengthOrHashMismatchError as error:
            raise MetadataMixed(f"{self._stage}: {error}") from None
        except DownloadHTTPError as error:
            missing = error.status_code in {403, 404}
            raise (NotPublished if missing else ServerFault)(f"{error}; sync again later") from None
        except RepositoryError as error:
            raise MetadataInvalid(f"{self._stage or 'root'}: {error or 'cannot be read'}") from None
        except OSError as error:
            raise storage_fault(error, folder) from None

    def _expired(self) -> str:
        known: Any = self._trusted_set.get(self._stage)
        since = f" {_ago(self.now - known.expires)} ago by this device's clock" if known is not None else ""
        return (
            f"{self._stage} metadata expired{since} ({self.now:%Y-%m-%d %H:%M} UTC): either the clock is ahead, or the "
            "repository was not renewed or updates are held back; what runs goes on running"
        )


def read_companion(path: Path, adapter: str) -> Companion:
    """A companion whose bytes were verified.

    Raises:
        FactsInvalid: it cannot be read, or belongs to another adapter.
    """
    try:
        companion = Companion.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FactsInvalid(f"companion {path.stem[:12]}: {error.error_count()} of its fields cannot be read") from None
    if companion.adapter != adapter:
        raise FactsInvalid(f"companion {path.stem[:12]} is that of adapter {companion.adapter!r}")
    return companion


def _ago(span: timedelta) -> str:
    return f"{span.total_seconds() / 86400:.1f} days" if span.days else f"{span.total_seconds() / 3600:.1f} hours"
