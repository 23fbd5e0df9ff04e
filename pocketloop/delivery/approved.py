"""What reviewers' metadata says: approved adapters and bases, what is revoked, and what it may never say."""

import re

from pydantic import ValidationError
from tuf.api.metadata import Metadata, TargetFile

from pocketloop.contracts.delivery import STABLE, AdapterFacts, BaseFacts, adapter_target, base_target
from pocketloop.contracts.errors import DeliveryError

REVOKED = "revoked"
"""Field of stable's signed metadata: `{digest: reason}` of what may never be served again."""
_PATH = re.compile(rf"{STABLE}/([a-z][a-z0-9_-]{{0,62}})/([0-9a-f]{{64}})\.(gguf|json)")
_BASE = "base"


def approved_in(stable: Metadata) -> dict[str, AdapterFacts]:
    """Facts of each approved adapter by the sha256 of its file."""
    return {
        target.hashes["sha256"]: AdapterFacts.model_validate(target.custom)
        for path, target in stable.signed.targets.items()
        if path.endswith(".gguf") and not path.startswith(f"{STABLE}/{_BASE}/")
    }


def bases_in(stable: Metadata) -> dict[str, BaseFacts]:
    """Facts of each approved base by the sha256 of its file."""
    return {
        target.hashes["sha256"]: BaseFacts.model_validate(target.custom)
        for path, target in stable.signed.targets.items()
        if path.startswith(f"{STABLE}/{_BASE}/")
    }


def revoked_in(stable: Metadata) -> dict[str, str]:
    """What `stable` says is revoked: reason by digest."""
    return dict(stable.signed.unrecognized_fields.get(REVOKED, {}))


def refuse_tricks(published: Metadata, proposed: Metadata) -> None:
    """Refuse a proposed `stable` that says what this program would never propose, whoever wrote it.

    Raises:
        DeliveryError: a target's name leads elsewhere, is not that of its file or facts, changes a file or facts
            that were approved, or is revoked; or a revocation is taken back.
    """
    before, after = published.signed.targets, proposed.signed.targets
    revoked = revoked_in(proposed)
    for digest, reason in revoked_in(published).items():
        if revoked.get(digest) != reason:
            raise DeliveryError(f"the proposal takes back the revocation of {digest}; a revocation is for ever")
    for path, target in after.items():
        digest = path.rpartition("/")[2].partition(".")[0]
        if digest in revoked:
            raise DeliveryError(f"{digest} is revoked ({revoked[digest]}) and can never be published again")
        if path in before:
            if target != before[path]:
                raise DeliveryError(
                    f"the proposal changes {path}, which is approved as it is; approved files are immutable"
                )
        else:
            _check(path, target)


def _check(path: str, target: TargetFile) -> None:
    found = _PATH.fullmatch(path)
    if found is None:
        raise DeliveryError(f"{path!r} is no name of an adapter, a companion or a base")
    folder, _, kind = found.groups()
    if kind == "json":
        if folder == _BASE:
            raise DeliveryError(f"{path}: a base has no companion")
        return
    try:
        if folder == _BASE:
            BaseFacts.model_validate(target.custom)
            name = base_target(target.hashes.get("sha256", ""))
        else:
            facts = AdapterFacts.model_validate(target.custom)
            name = adapter_target(facts.adapter, target.hashes.get("sha256", ""))
    except ValidationError as error:
        raise DeliveryError(f"{path}: no facts that devices understand: {error.errors()[0]['msg']}") from None
    if name != path:
        raise DeliveryError(f"{path}: the file, or its facts, belong to {name}")
