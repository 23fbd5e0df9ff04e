"""Candidates as versions of a registered model in MLflow.

`functions` holds candidates, one version each; `functions.released` holds what a reviewer promoted, and its alias
`champion` is what the fleet's stable channel serves. A version's source is the run artifact `bundle`, its
description the adapter card, and its tags the digests and verdicts. Nothing a person wrote is stored here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.errors import RegistryError, ReviewRefused
from pocketloop.contracts.exports import MERGED_FILE
from pocketloop.contracts.files import Folder, sha256_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import (
    DatasetRelease,
    EvaluationReport,
    GateDecision,
    ReleaseBundle,
    TrainReport,
    bundle_digest,
)
from pocketloop.registry.attest import ATTESTATION, attest
from pocketloop.registry.description import page_of

_BATCH = 1000
"""The most values that MLflow takes at once."""

BUNDLE = "bundle"
CHAMPION = "champion"
REJECTED = "rejected"
"""Tag of a candidate that a reviewer turned down; its value is the reason."""


SET, ITEMS = "evaluation_set", "evaluation_items"
"""Prefixes of a candidate's tags: `evaluation_set.NAME` is a set's digest, `evaluation_items.NAME` its size."""


class Candidate(BaseModel):
    """A registered version, as its tags describe it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str
    version: str
    verdict: str
    digest: str
    dataset_digest: str
    recipe_digest: str
    base_digest: str
    metrics: dict[str, float]
    created: str
    run_id: str
    rejected: str = ""
    """Why a reviewer turned it down; empty otherwise."""
    merged: bool = False
    """Whether base and adapter are one file, which phones cannot fetch: it cannot be published."""


def released_name(adapter: str) -> str:
    """The registered model into which a reviewer promotes `adapter`'s candidates."""
    return f"{adapter}.released"


def source_of(adapter: str, released: Any) -> str | None:
    """The candidate's version that a version of `<adapter>.released` says it was copied from."""
    match = re.fullmatch(rf"models:/{re.escape(adapter)}/(\d+)", released.source or "")
    return match[1] if match else None


def client(home: Home) -> Any:
    """An MLflow client on the project's store (SQLite under `home` by default)."""
    import logging

    home.root.mkdir(parents=True, exist_ok=True)
    for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its first use of a store narrates every migration
    import mlflow

    return mlflow.MlflowClient(tracking_uri=home.mlflow_uri, registry_uri=home.mlflow_uri)


def ensure_experiment(home: Home, name: str) -> str:
    """The id of experiment `name`, created with its artifacts under `home` when it is new."""
    api = client(home)
    found = api.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = home.mlflow_uri.startswith("sqlite:")
    location = (home.mlflow_artifacts / name).as_uri() if local else None
    return str(api.create_experiment(name, artifact_location=location))


def log_training(home: Home, run_id: str, report: TrainReport) -> None:
    """Write every stage's curves (`0-sft/loss`, `1-dpo/accuracy` ...)."""
    from mlflow.entities import Metric

    metrics = [
        Metric(f"{number}-{stage.stage}/{name}", value, 0, step)
        for number, stage in enumerate(report.stages)
        for name, points in stage.curves.items()
        for step, value in points
    ]
    for start in range(0, len(metrics), _BATCH):
        client(home).log_batch(run_id, metrics=metrics[start : start + _BATCH])


def register_candidate(
    home: Home,
    run_id: str,
    folder: Folder,
    bundle: ReleaseBundle,
    card: str,
    evaluation: EvaluationReport,
    decision: GateDecision,
    release: DatasetRelease,
) -> Candidate:
    """Store the bundle with the run and create a version from it; the same bundle gives the same version again.

    Raises:
        RegistryError: `bundle` does not carry the digest of `decision` and its files.
    """
    api = client(home)
    if bundle.digest != _digest(bundle, decision):
        raise RegistryError(f"the bundle of {bundle.adapter!r} carries a digest that is not its own; write it again")
    ensure_models(home, bundle.adapter)
    held = api.search_model_versions(f"name = '{bundle.adapter}' and tag.digest = '{bundle.digest}'")
    if held:
        return describe(held[0])
    card = page_of(card)
    _log_charts(api, run_id, evaluation, decision)
    api.log_artifacts(run_id, str(folder.path), BUNDLE)
    measured = evaluation.result("adapter")
    tags = {
        "verdict": decision.verdict,
        "digest": bundle.digest,
        ATTESTATION: attest(home, bundle.adapter, bundle.digest, card),
        "task": bundle.task,
        "base": bundle.base,
        "base_digest": bundle.base_digest,
        "recipe_digest": bundle.recipe_digest,
        "dataset_digest": bundle.dataset_digest,
        "dataset_examples": str(sum(release.splits.values())),
        **{f"gate.{gate.gate}": gate.verdict for gate in decision.gates},
        **{f"{SET}.{name}": digest for name, digest in evaluation.sets.items()},
        **{f"{ITEMS}.{name}": str(items) for name, items in evaluation.items.items()},
        **{f"metric.{name}": f"{value.value:.6f}" for name, value in (measured.metrics if measured else {}).items()},
        **{f"sha256.{name}": digest for name, digest in bundle.files.items()},
    }
    # One call, so that a version is never seen without its tags and card.
    version = api.create_model_version(
        bundle.adapter,
        source=f"{api.get_run(run_id).info.artifact_uri}/{BUNDLE}",
        run_id=run_id,
        tags={_tag(key): value for key, value in tags.items()},
        description=card,
    )
    return describe(api.get_model_version(bundle.adapter, version.version))


def attach(home: Home, found: Candidate, files: Iterable[Path], under: str, tags: Mapping[str, str]) -> None:
    """Put files beside a version's bundle, in its run's artifacts, and say so in tags of the version.

    The bundle and its digest stay what they are: this is told about a version, not a part of it.

    Raises:
        RegistryError: the version has no run to keep files with.
    """
    if not found.run_id:
        raise RegistryError(f"{found.adapter}@{found.version} has no run that could keep files")
    api = client(home)
    for file in files:
        api.log_artifact(found.run_id, str(file), under)
    for key, value in tags.items():
        api.set_model_version_tag(found.adapter, found.version, _tag(key), value)


def candidates(home: Home, adapter: str | None = None) -> list[Candidate]:
    """All candidates, newest first; of one adapter when it is named."""
    query = f"name = '{adapter}'" if adapter else ""
    found = client(home).search_model_versions(query, order_by=["creation_timestamp DESC"])
    return [describe(version) for version in found if not version.name.endswith(".released")]


def candidate(home: Home, adapter: str, version: str | None = None) -> Candidate:
    """One candidate, by default the newest.

    Raises:
        RegistryError: there is no such version.
    """
    found = candidates(home, adapter)
    if not found:
        raise RegistryError(f"no candidate of {adapter!r} is registered; `pocketloop retrain {adapter}` makes one")
    if version is None:
        return found[0]
    match = next((item for item in found if item.version == version), None)
    if match is None:
        known = ", ".join(item.version for item in found)
        raise RegistryError(f"{adapter} has no version {version}; registered: {known}")
    return match


def read_decisions(home: Home, adapter: str, most: int) -> list[tuple[str, GateDecision]]:
    """The gates' decisions on the newest versions of an adapter (`functions@2`), newest first; unchecked."""
    import tempfile

    from mlflow.exceptions import MlflowException
    from pydantic import ValidationError

    found = []
    for one in candidates(home, adapter)[:most]:
        with tempfile.TemporaryDirectory() as target:
            try:
                file = Path(client(home).download_artifacts(one.run_id, f"{BUNDLE}/gates.json", target))
                decision = GateDecision.model_validate_json(file.read_bytes())
            except (MlflowException, OSError, ValidationError):
                continue  # what is gone, or was written by another version, tells nothing
        found.append((f"{one.adapter}@{one.version}", decision))
    return found


def champion(home: Home, adapter: str) -> Candidate | None:
    """The candidate behind alias `champion` of `<adapter>.released`; `None` when nothing was ever promoted."""
    from mlflow.exceptions import MlflowException

    try:
        released = client(home).get_model_version_by_alias(released_name(adapter), CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    digest = released.tags.get("digest")
    return next((item for item in candidates(home, adapter) if item.digest == digest), None)


@contextmanager
def fetch_bundle(home: Home, found: Candidate) -> Iterator[Path]:
    """The bundle's files in a temporary folder, checked against the digest in `found`.

    Raises:
        ReviewRefused: the bundle is gone, or something in it was changed since it was registered.
    """
    with fetch_unchecked(home, found) as folder:
        check_bundle(found, folder)
        yield folder


@contextmanager
def fetch_unchecked(home: Home, found: Candidate) -> Iterator[Path]:
    """The bundle's files as they lie in the store, in a temporary folder.

    Raises:
        ReviewRefused: the bundle is gone.
    """
    import tempfile

    from mlflow.exceptions import MlflowException

    api, name = client(home), f"{found.adapter}@{found.version}"
    try:
        present = bool(found.run_id) and bool(api.list_artifacts(found.run_id, BUNDLE))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        present = False
    if not present:
        raise ReviewRefused(f"{name}: its files are gone from the store")
    with tempfile.TemporaryDirectory() as target:
        yield Path(api.download_artifacts(found.run_id, BUNDLE, target))


def check_bundle(found: Candidate, folder: Path) -> None:
    """Check a bundle's files against the digest of its version: what phones get, its origin, verdict and evidence.

    Raises:
        ReviewRefused: something in it was changed since it was registered.
    """
    from pydantic import ValidationError

    name = f"{found.adapter}@{found.version}"
    try:
        bundle = ReleaseBundle.model_validate_json((folder / "bundle.json").read_bytes())
        decision = GateDecision.model_validate_json((folder / "gates.json").read_bytes())
    except (OSError, ValidationError):
        raise ReviewRefused(f"{name}: bundle.json or gates.json cannot be read; nothing says what it is") from None
    for file, digest in (bundle.files | decision.evidence).items():
        if not (folder / file).is_file() or sha256_file(folder / file) != digest:
            raise ReviewRefused(f"{name}: {file} was changed after registration")
    if not bundle.digest == found.digest == _digest(bundle, decision) or bundle.adapter != found.adapter:
        raise ReviewRefused(f"{name}: the stored bundle is not the registered one")


def _log_charts(api: Any, run_id: str, evaluation: EvaluationReport, decision: GateDecision) -> None:
    """What MLflow draws of a candidate: the models side by side in each metric's section, gates, slices, reliability.

    MLflow groups charts by what stands before a name's last slash. Reliability is by bin, the fallback curve by
    thousandths of the threshold.
    """
    from mlflow.entities import Metric

    values = [
        (f"{result.set}/{metric}/{result.model}", found.value, 0)
        for result in evaluation.results
        for metric, found in result.metrics.items()
    ]
    values += [(f"gates/{gate.gate}", gate.observed, 0) for gate in decision.gates if gate.observed is not None]
    values += [(f"slices/{one.set}/{one.name}/{one.model}", one.estimate.value, 0) for one in evaluation.slices]
    if (router := evaluation.router) is not None:
        for number, found in enumerate(router.reliability):
            values += [("reliability/confidence", found.confidence, number)]
            values += [("reliability/share that is right", found.right.value, number)]
        for point in router.curve:
            step = round(1000 * point.threshold)
            values += [("router/goes to the cloud", point.cloud, step)]
            values += [("router/right of what stays", point.accuracy, step)] if point.accuracy is not None else []
    named = {(_tag(name), step): value for name, value, step in values}
    metrics = [Metric(name, value, 0, step) for (name, step), value in named.items()]
    for start in range(0, len(metrics), _BATCH):
        api.log_batch(run_id, metrics=metrics[start : start + _BATCH])


def ensure_models(home: Home, adapter: str) -> None:
    """Create the models of an adapter's candidates and of its approved versions, where they are new."""
    api = client(home)
    text = "Candidates: every version was trained, exported and judged by the pipeline."
    _ensure_model(api, adapter, text)
    text = "Approved adapters: a reviewer promotes a candidate's version into this model."
    _ensure_model(api, released_name(adapter), text)


def _digest(bundle: ReleaseBundle, decision: GateDecision) -> str:
    return bundle_digest(bundle.adapter, bundle.files, bundle.dataset_digest, bundle.base_digest, decision)


def _ensure_model(api: Any, name: str, text: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        api.create_registered_model(name, description=text)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tag(key: str) -> str:
    """MLflow allows letters, digits and `_-./: ` in keys."""
    return "".join(char if char.isalnum() or char in "_-./" else "_" for char in key)


def describe(version: Any) -> Candidate:
    """A registered version as its tags describe it."""
    tags = version.tags
    return Candidate(
        adapter=version.name,
        version=str(version.version),
        verdict=tags.get("verdict", "unknown"),
        digest=tags.get("digest", ""),
        dataset_digest=tags.get("dataset_digest", ""),
        recipe_digest=tags.get("recipe_digest", ""),
        base_digest=tags.get("base_digest", ""),
        metrics={key.removeprefix("metric."): float(v) for key, v in tags.items() if key.startswith("metric.")},
        created=_utc(version.creation_timestamp),
        run_id=version.run_id or "",
        rejected=tags.get(REJECTED, ""),
        merged=f"sha256.{MERGED_FILE}" in tags,
    )


def _utc(milliseconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
