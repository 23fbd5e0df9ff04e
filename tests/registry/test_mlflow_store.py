from datetime import UTC, datetime
from pathlib import Path

import pytest

from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.files import Folder, sha256_file, sha256_text, write_json, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import (
    CollectReport,
    DatasetRelease,
    DriftReport,
    Estimate,
    EvaluationReport,
    GateDecision,
    GateResult,
    LabelReport,
    ReleaseBundle,
    ScrubReport,
    SetResult,
    ValidationReport,
)
from pocketloop.registry.lineage import trace
from pocketloop.registry.mlflow_store import (
    CHAMPION,
    Candidate,
    candidate,
    candidates,
    champion,
    client,
    ensure_experiment,
    fetch_bundle,
    register_candidate,
    released_name,
)

pytestmark = pytest.mark.slow

RELEASE = DatasetRelease(
    digest="d" * 64,
    inputs="i" * 64,
    adapter="functions",
    task="function_call",
    splits={"train": 2, "validation": 0, "test": 1},
    groups={"train": 1, "validation": 0, "test": 1},
    event_ids=2,
    watermark=9,
    policies=["2026-01"],
    parent=None,
    collect=CollectReport(events=3, examples=0, by_source={"events": 3}),
    scrub=ScrubReport(
        records=3, quarantined=0, found={"PERSON": 1}, reused_shards=0, scrubbed_shards=1, leaks=0, scrubber="s"
    ),
    validation=ValidationReport(rows=3, success=True, expectations={"turns": True}),
    drift=DriftReport(reference=None, rows=3, share=0.0, drifted=False),
    label=LabelReport(judge="verifier", examples=3, corrected=0, rejected={}, rated=0, kappa=None, kappa_interval=None),
)
DECISION = GateDecision(
    verdict="pass", gates=[GateResult(gate="function_exact >= 0.8", verdict="pass", observed=0.9, n=10, detail="0.90")]
)
EVALUATION = EvaluationReport(
    results=[
        SetResult(
            model="adapter",
            set="heldout",
            metrics={"function_exact": Estimate(value=0.9, n=10, low=0.6, high=0.98)},
            seconds=1.0,
            tokens=100,
        )
    ]
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def _bundle(folder: Path, content: str) -> tuple[Folder, ReleaseBundle]:
    folder.mkdir()
    (folder / "adapter.gguf").write_text(content)
    bundle = ReleaseBundle(
        adapter="functions",
        task="function_call",
        recipe_digest="r" * 64,
        dataset_digest=RELEASE.digest,
        base="tiny",
        base_digest="b" * 64,
        files={"adapter.gguf": sha256_file(folder / "adapter.gguf")},
        sizes={"adapter.gguf": len(content)},
        digest=sha256_text(content),
        created=datetime(2026, 11, 20, tzinfo=UTC),
    )
    write_json(folder / "bundle.json", bundle)
    write_json(folder / "gates.json", DECISION)
    write_json(folder / "dataset.json", RELEASE)
    return Folder.of(folder), bundle


def _register(store: Home, folder: Path, content: str) -> Candidate:
    files, bundle = _bundle(folder, content)
    experiment = ensure_experiment(store, "retrain")
    run = client(store).create_run(experiment)
    return register_candidate(store, run.info.run_id, files, bundle, "# card", EVALUATION, DECISION, RELEASE)


def test_a_candidate_carries_its_card_digests_verdict_and_metrics(store: Home, tmp_path: Path) -> None:
    registered = _register(store, tmp_path / "one", "one")
    assert (registered.verdict, registered.metrics) == ("pass", {"function_exact": 0.9})
    held = client(store).get_model_version("functions", registered.version)
    assert held.description == "# card"
    assert held.tags["dataset_digest"] == RELEASE.digest
    assert held.tags["sha256.adapter.gguf"] == sha256_file(tmp_path / "one" / "adapter.gguf")
    assert client(store).get_registered_model(released_name("functions"))


def test_the_same_bundle_is_registered_once(store: Home, tmp_path: Path) -> None:
    first = _register(store, tmp_path / "one", "same")
    again = _register(store, tmp_path / "two", "same")
    assert first == again
    assert _register(store, tmp_path / "three", "other").version != first.version


def test_the_champion_is_what_was_promoted_and_aliased(store: Home, tmp_path: Path) -> None:
    assert champion(store, "nothing-yet") is None
    promoted = _register(store, tmp_path / "one", "promoted")
    api = client(store)
    assert champion(store, "functions") is None
    copy = api.copy_model_version(f"models:/functions/{promoted.version}", released_name("functions"))
    api.set_registered_model_alias(released_name("functions"), CHAMPION, copy.version)
    assert champion(store, "functions") == promoted
    assert released_name("functions") not in {item.adapter for item in candidates(store)}


def test_a_file_changed_after_registration_is_refused(store: Home, tmp_path: Path) -> None:
    registered = _register(store, tmp_path / "one", "tampered")
    with fetch_bundle(store, registered) as folder:
        assert (folder / "adapter.gguf").read_text() == "tampered"
    stored = next(p for p in store.mlflow_artifacts.rglob("adapter.gguf") if p.read_text() == "tampered")
    stored.write_text("evil")
    with (
        pytest.raises(RegistryError, match="adapter.gguf was changed after registration"),
        fetch_bundle(store, registered),
    ):
        pass


def test_a_version_leads_back_to_its_event_ids(store: Home, tmp_path: Path) -> None:
    registered = _register(store, tmp_path / "one", "traced")
    rows = [
        {"example_id": "a", "source": "events", "event_ids": ["e2", "e1"]},
        {"example_id": "b", "source": "mine.jsonl", "event_ids": []},
    ]
    write_jsonl(store.releases / RELEASE.digest / "lineage.jsonl", rows)
    found = trace(store, "functions", registered.version)
    assert found.event_ids == ["e1", "e2"]
    assert found.example_files == {"mine.jsonl": 1}


def test_an_unknown_version_names_the_known_ones(store: Home) -> None:
    with pytest.raises(RegistryError, match="no candidate of 'nobody'"):
        candidate(store, "nobody")
    with pytest.raises(RegistryError, match="functions has no version 999; registered: "):
        candidate(store, "functions", "999")
