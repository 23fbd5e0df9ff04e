"""From a registered version back to the event ids that it was trained on."""

from pydantic import BaseModel

from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.files import read_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import DatasetRelease, GateDecision, ReleaseBundle
from pocketloop.registry.mlflow_store import Candidate, candidate, fetch_bundle


class Trace(BaseModel):
    """The chain behind one version."""

    candidate: Candidate
    bundle: ReleaseBundle
    decision: GateDecision
    release: DatasetRelease
    event_ids: list[str]
    example_files: dict[str, int]


def trace(home: Home, adapter: str, version: str | None = None) -> Trace:
    """Walk from a version through its bundle, gates and dataset release to the events of the log.

    Raises:
        RegistryError: the version, or the dataset release that it names, is not here.
    """
    found = candidate(home, adapter, version)
    with fetch_bundle(home, found) as folder:
        bundle = ReleaseBundle.model_validate_json((folder / "bundle.json").read_text(encoding="utf-8"))
        decision = GateDecision.model_validate_json((folder / "gates.json").read_text(encoding="utf-8"))
        release = DatasetRelease.model_validate_json((folder / "dataset.json").read_text(encoding="utf-8"))
    stored = home.releases / found.dataset_digest / "lineage.jsonl"
    if not stored.is_file():
        raise RegistryError(f"dataset release {found.dataset_digest} is not under {home.releases}")
    event_ids: list[str] = []
    example_files: dict[str, int] = {}
    for row in read_jsonl(stored):
        event_ids.extend(row["event_ids"])
        if "example_id" in row and not row["event_ids"]:
            example_files[row["source"]] = example_files.get(row["source"], 0) + 1
    return Trace(
        candidate=found,
        bundle=bundle,
        decision=decision,
        release=release,
        event_ids=sorted(set(event_ids)),
        example_files=example_files,
    )
