"""Which released versions count: a reviewer's copy of a candidate is an approval, everything else is refused.

A reviewer presses *Promote model* on a candidate's page; MLflow copies the version into `<adapter>.released`, where
only reviewers may write. Its tags and aliases approve nothing: whoever may create a version may set them. So everything
is checked again from the files up, and the verdict is written where the reviewer sees it.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pocketloop.contracts.errors import RegistryError, ReviewRefused
from pocketloop.contracts.exports import ADAPTER_FILE, EXPORT_RECORD, NOT_FOR_PHONES, ExportRecord, why_merged
from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import GateDecision, ReleaseBundle, worst
from pocketloop.models.llama_runtime import BASE_DIGEST_KEY
from pocketloop.registry.attest import ATTESTATION, check_attestation
from pocketloop.registry.description import join_description, split_description
from pocketloop.registry.history import set_tags
from pocketloop.registry.mlflow_store import (
    REJECTED,
    Candidate,
    candidate,
    candidates,
    client,
    fetch_bundle,
    released_name,
    source_of,
)


class Approval(BaseModel):
    """A reviewer's approval that counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: Candidate
    released: str
    """Version of `<adapter>.released`: the copy that is the approval."""
    bundle_digest: str
    file_digest: str
    """sha256 of the adapter file: the digest that devices know it by."""
    approved: AwareDatetime


class ReviewedVersion(BaseModel):
    """A released version and what became of it: an approval, or the reason why it is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str
    released: str
    version: str | None
    """The candidate's version that it was copied from, if it names one."""
    verdict: Literal["accepted", "refused", "rejected"]
    approval: Approval | None
    reason: str
    """Why it does not count; empty for an approval."""


def review(
    home: Home, adapter: str, revoked: Collection[str] = (), known_bases: Collection[str] | None = None
) -> list[ReviewedVersion]:
    """Check every version of `<adapter>.released`, oldest first, and write on each what came out.

    Tag `review` becomes `accepted`, `rejected` or `refused`, `review.reason` says why, and the description begins with
    the reason, or shows the candidate's card, which MLflow's own copy leaves out. Nothing is written twice.

    Args:
        revoked: digests (of bundles or adapter files) that may never be released again.
        known_bases: digests of the bases that phones have; by default those that are prepared under `home`.

    Raises:
        RegistryError: nothing can be checked here, because the pipeline's public key is absent.
    """
    api = client(home)
    bases = prepared_bases(home) if known_bases is None else known_bases
    _show_rejections(home, adapter)
    reviewed = []
    for version in _released(home, adapter):
        found = _review_one(home, adapter, version, revoked, bases)
        _write_verdict(api, version, found)
        reviewed.append(found)
    return reviewed


def newest_approval(
    home: Home, adapter: str, revoked: Collection[str] = (), known_bases: Collection[str] | None = None
) -> Approval | None:
    """The newest released version that counts, after a `review` of all."""
    approvals = [found.approval for found in review(home, adapter, revoked, known_bases) if found.approval]
    return approvals[-1] if approvals else None


def check_candidate(
    home: Home, adapter: str, version: str, revoked: Collection[str] = (), known_bases: Collection[str] | None = None
) -> tuple[Candidate, str]:
    """The candidate, and the sha256 of its adapter file, if a copy of it would count; `known_bases` `None`: any base.

    Raises:
        ReviewRefused: it would not, and why.
        RegistryError: there is no such version.
    """
    found = candidate(home, adapter, version)
    reason = rejections(home, adapter).get(version) or found.rejected
    if reason:
        raise _Rejected(f"{adapter}@{version} was rejected: {reason}")
    _must_have_passed(found, found.verdict)
    check_signature(home, found)
    with fetch_bundle(home, found) as folder:
        bundle = ReleaseBundle.model_validate_json((folder / "bundle.json").read_bytes())
        decision = GateDecision.model_validate_json((folder / "gates.json").read_bytes())
        _must_have_passed(found, decision.verdict)
        _must_have_passed(found, worst(gate.verdict for gate in decision.gates))
        file_digest = bundle.files.get(ADAPTER_FILE)
        if file_digest is None:
            raise ReviewRefused(f"{adapter}@{version} {_why_without_a_file(folder)}")
        _must_fit_its_base(folder / ADAPTER_FILE, bundle, known_bases)
    if found.digest in revoked or file_digest in revoked:
        raise ReviewRefused(f"{adapter}@{version} was revoked; a revoked adapter is never released again")
    return found, file_digest


def check_signature(home: Home, found: Candidate) -> None:
    """Check that the pipeline signed this candidate's digest and card.

    Raises:
        ReviewRefused: it did not.
        RegistryError: the pipeline's public key is not here.
    """
    stored = client(home).get_model_version(found.adapter, found.version)
    card, _ = split_description(stored.description)
    check_attestation(home, stored.tags.get(ATTESTATION, ""), found.adapter, found.digest, card)


def approve(home: Home, adapter: str, version: str) -> str:
    """Copy a candidate into `<adapter>.released` as *Promote model* does, if the copy would count; gives its version.

    Raises:
        ReviewRefused: the copy would not count, and why.
        RegistryError: there is no such candidate, or this account may not write released versions.
    """
    check_candidate(home, adapter, version, known_bases=prepared_bases(home) or None)
    api = client(home)
    stored = api.get_model_version(adapter, version)
    with _allowed(f"approve {adapter}@{version}"):
        copy = api.create_model_version(
            released_name(adapter), source=f"models:/{adapter}/{version}", run_id=stored.run_id, tags=stored.tags
        )
    return str(copy.version)


def reject(home: Home, adapter: str, version: str, reason: str) -> None:
    """Turn a candidate down for good: no copy of it counts from now on, also one that was made before.

    The decision is kept on `<adapter>.released`, where only reviewers may write, and shown on the candidate itself by
    whoever may write there: this account, or the next `review` of the pipeline's.

    Raises:
        RegistryError: there is no such candidate, or this account may not write released versions.
    """
    candidate(home, adapter, version)
    said = " ".join(reason.split())
    if not said:
        raise RegistryError("a rejection needs a reason: others read it on the candidate's page")
    api = client(home)
    with _allowed(f"reject {adapter}@{version}"):
        api.set_registered_model_tag(released_name(adapter), f"{REJECTED}.{version}", said)
    with suppress(RegistryError), _allowed(""):
        api.set_model_version_tag(adapter, version, REJECTED, said)


def rejections(home: Home, adapter: str) -> dict[str, str]:
    """Why reviewers turned candidates down, by version."""
    from mlflow.exceptions import MlflowException

    try:
        tags = client(home).get_registered_model(released_name(adapter)).tags
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    prefix = f"{REJECTED}."
    return {key.removeprefix(prefix): reason for key, reason in tags.items() if key.startswith(prefix)}


def standing(home: Home, adapter: str) -> dict[str, str]:
    """What reviewers made of each candidate, in words, by version; what nobody has touched yet is left out."""
    return said_of(adapter, _released(home, adapter), rejections(home, adapter))


def said_of(adapter: str, released: list[Any], rejected: dict[str, str]) -> dict[str, str]:
    """`standing`, from the released versions (oldest first) and the reasons of rejections by version."""
    said: dict[str, str] = {}
    for version in released:
        source = source_of(adapter, version)
        if source and not said.get(source, "").startswith("accepted"):
            verdict, reason = version.tags.get("review", "waits to be checked"), version.tags.get("review.reason", "")
            said[source] = f"{verdict} as {version.name}@{version.version}" + (f": {reason}" if reason else "")
    return said | {version: f"rejected: {reason}" for version, reason in rejected.items()}


def read_card(home: Home, adapter: str, version: str) -> tuple[str, str]:
    """A candidate's card as its page shows it, and why it is not to be believed (empty where the pipeline wrote it)."""
    stored = client(home).get_model_version(adapter, version)
    once, _ = split_description(stored.description)
    try:
        check_attestation(home, stored.tags.get(ATTESTATION, ""), adapter, stored.tags.get("digest", ""), once)
    except RegistryError as error:
        return once, str(error)
    return once, ""


def waiting(home: Home) -> list[str]:
    """Adapters whose newest released version was not checked yet, or was accepted and never rolled out."""
    models = client(home).search_registered_models(max_results=1000)
    adapters = sorted(model.name.removesuffix(".released") for model in models if model.name.endswith(".released"))
    return [adapter for adapter in adapters if waits([version.tags for version in _released(home, adapter)])]


def waits(tags: list[dict[str, str]]) -> bool:
    """Whether the newest of these released versions (their tags, oldest first) still has to go to the fleet."""
    if not tags or tags[-1].get("review") in ("refused", "rejected"):
        return False
    # The same candidate may have been promoted twice; what was taken back is not started again.
    rolled_out = {tag.get("digest") for tag in tags if "rollout.state" in tag}
    return "review" not in tags[-1] or tags[-1].get("digest") not in rolled_out


def prepared_bases(home: Home) -> set[str]:
    """Digests of the bases that are prepared under `home`."""
    return {path.name for path in home.bases.glob("[0-9a-f]*") if (path / "base.gguf").is_file()}


def _released(home: Home, adapter: str) -> list[Any]:
    """The versions of `<adapter>.released`, oldest first."""
    versions = client(home).search_model_versions(f"name = '{released_name(adapter)}'")
    return sorted(versions, key=lambda version: int(version.version))


class _Rejected(ReviewRefused):
    """A reviewer said no."""


def _review_one(
    home: Home, adapter: str, version: Any, revoked: Collection[str], bases: Collection[str]
) -> ReviewedVersion:
    source = source_of(adapter, version)
    released = str(version.version)
    seen: dict[str, Any] = {"adapter": adapter, "released": released, "version": source}
    try:
        if source is None:
            raise ReviewRefused(f"it is no copy of a candidate of {adapter!r}: press *Promote model* on a candidate")
        if all(found.version != source for found in candidates(home, adapter)):
            raise ReviewRefused(f"it names {adapter}@{source} as its source, and there is no such candidate")
        origin, file_digest = check_candidate(home, adapter, source, revoked, bases)
        if version.tags.get("digest") != origin.digest:
            raise ReviewRefused(f"it carries another digest than {adapter}@{source}, which it names as its source")
    except ReviewRefused as error:
        verdict = "rejected" if isinstance(error, _Rejected) else "refused"
        return ReviewedVersion(**seen, verdict=verdict, approval=None, reason=str(error))
    approval = Approval(
        candidate=origin,
        released=released,
        bundle_digest=origin.digest,
        file_digest=file_digest,
        approved=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
    )
    return ReviewedVersion(**seen, verdict="accepted", approval=approval, reason="")


def _write_verdict(api: Any, version: Any, found: ReviewedVersion) -> None:
    once, lines = split_description(version.description)
    if found.approval:
        once, _ = split_description(api.get_model_version(found.adapter, found.version).description)
    else:
        once = f"**{found.verdict.capitalize()}**: {found.reason}"
    description = join_description(once, lines)
    if description != version.description:
        api.update_model_version(version.name, version.version, description)
    set_tags(api, version, {"review": found.verdict, "review.reason": found.reason})


def _show_rejections(home: Home, adapter: str) -> None:
    """Say on candidates what reviewers decided: they may not write there themselves."""
    api = client(home)
    said = rejections(home, adapter)
    for found in candidates(home, adapter):
        if found.version in said and found.rejected != said[found.version]:
            api.set_model_version_tag(adapter, found.version, REJECTED, said[found.version])


def _must_have_passed(found: Candidate, verdict: str) -> None:
    if verdict != "pass":
        raise ReviewRefused(f"{found.adapter}@{found.version} did not pass its gates: the verdict is {verdict!r}")


def _why_without_a_file(bundle: Path) -> str:
    record = bundle / EXPORT_RECORD
    if not record.is_file():
        return f"holds no {ADAPTER_FILE}: there is nothing that phones could fetch"
    reasons = ExportRecord.model_validate_json(record.read_bytes()).merged
    return f"was {why_merged(reasons)}; {NOT_FOR_PHONES}: train one without, or `pocketloop export` it for an app"


def _must_fit_its_base(adapter: Path, bundle: ReleaseBundle, known: Collection[str] | None) -> None:
    if known is not None and bundle.base_digest not in known:
        raise ReviewRefused(f"its base {bundle.base} {bundle.base_digest[:12]} is none of those that phones have")
    named = _base_named_by(adapter)
    if named != bundle.base_digest:
        raise ReviewRefused(f"its file is made for base {named[:12] or 'unknown'}, not for {bundle.base_digest[:12]}")


def _base_named_by(adapter: Path) -> str:
    """The digest of the base that a GGUF adapter names in its metadata; empty when it names none."""
    from gguf import GGUFReader

    try:
        field = GGUFReader(adapter).get_field(BASE_DIGEST_KEY)
        return str(field.contents()) if field else ""
    except Exception as error:  # the reader fails on a damaged file in as many ways as there are bytes
        raise ReviewRefused(f"{adapter.name} is no readable GGUF file ({type(error).__name__})") from None


@contextmanager
def _allowed(to: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        raise RegistryError(f"this MLflow account may not {to}: a reviewer may (`pocketloop review setup`)") from None
