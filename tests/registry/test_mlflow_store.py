from pathlib import Path

import pytest
from sample_candidates import EVALUATION, RELEASE, gates, register_sample, sample_bundle

from pocketloop.contracts.errors import RegistryError, ReviewRefused
from pocketloop.contracts.files import sha256_file, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.registry.lineage import trace
from pocketloop.registry.mlflow_store import (
    CHAMPION,
    attach,
    candidate,
    candidates,
    champion,
    client,
    fetch_bundle,
    register_candidate,
    released_name,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def test_a_candidate_carries_its_card_digests_verdict_and_metrics(store: Home, tmp_path: Path) -> None:
    registered = register_sample(store, tmp_path / "one", "one")
    assert (registered.verdict, registered.metrics) == ("pass", {"function_exact": 0.9})
    held = client(store).get_model_version("functions", registered.version)
    assert held.description == "# card"
    assert held.tags["dataset_digest"] == RELEASE.digest
    assert held.tags["sha256.adapter.gguf"] == sha256_file(tmp_path / "one" / "adapter.gguf")
    assert client(store).get_registered_model(released_name("functions"))


def test_the_same_bundle_is_registered_once(store: Home, tmp_path: Path) -> None:
    first = register_sample(store, tmp_path / "one", "same")
    again = register_sample(store, tmp_path / "two", "same")
    assert first == again
    assert register_sample(store, tmp_path / "three", "other").version != first.version


def test_the_champion_is_what_was_promoted_and_aliased(store: Home, tmp_path: Path) -> None:
    assert champion(store, "nothing-yet") is None
    promoted = register_sample(store, tmp_path / "one", "promoted")
    api = client(store)
    assert champion(store, "functions") is None
    copy = api.copy_model_version(f"models:/functions/{promoted.version}", released_name("functions"))
    api.set_registered_model_alias(released_name("functions"), CHAMPION, copy.version)
    assert champion(store, "functions") == promoted
    assert released_name("functions") not in {item.adapter for item in candidates(store)}


def test_a_file_changed_after_registration_is_refused(store: Home, tmp_path: Path) -> None:
    registered = register_sample(store, tmp_path / "one", "tampered")
    with fetch_bundle(store, registered) as folder:
        content = (folder / "adapter.gguf").read_bytes()
    stored = next(p for p in store.mlflow_artifacts.rglob("adapter.gguf") if p.read_bytes() == content)
    stored.write_text("evil")
    with (
        pytest.raises(ReviewRefused, match="adapter.gguf was changed after registration"),
        fetch_bundle(store, registered),
    ):
        pass


def test_a_bundle_under_a_digest_that_is_not_its_own_is_not_registered(store: Home, tmp_path: Path) -> None:
    files, bundle = sample_bundle(tmp_path / "one", "failed", decision=gates("fail"))
    with pytest.raises(RegistryError, match="carries a digest that is not its own"):
        register_candidate(store, "run", files, bundle, "# card", EVALUATION, gates("pass"), RELEASE)


def test_a_version_leads_back_to_its_event_ids(store: Home, tmp_path: Path) -> None:
    registered = register_sample(store, tmp_path / "one", "traced")
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


def test_a_report_is_kept_beside_a_version_and_changes_nothing_of_its_bundle(store: Home, tmp_path: Path) -> None:
    registered = register_sample(store, tmp_path / "one", "attached")
    report = tmp_path / "summary.json"
    report.write_text("{}", encoding="utf-8")
    attach(store, registered, [report], "garak", {"garak": "20% at worst"})
    listed = client(store).list_artifacts(registered.run_id, "garak")
    assert [item.path for item in listed] == ["garak/summary.json"]
    assert client(store).get_model_version("functions", registered.version).tags["garak"] == "20% at worst"
    with fetch_bundle(store, registered) as folder:
        assert not (folder / "summary.json").exists()
    with pytest.raises(RegistryError, match="no run"):
        attach(store, registered.model_copy(update={"run_id": ""}), [report], "garak", {})
