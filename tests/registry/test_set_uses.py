"""How often evaluation sets decided, and evidence that was touched, on a real MLflow store (SQLite)."""

from pathlib import Path

import pytest
from sample_candidates import EVALUATION, RELEASE, gates, sample_bundle

from pocketloop.contracts.errors import ReviewRefused
from pocketloop.contracts.files import Folder, canonical_json, sha256_file, sha256_text, write_json
from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import EvaluationReport, GateDecision, bundle_digest
from pocketloop.registry.mlflow_store import (
    Candidate,
    client,
    ensure_experiment,
    fetch_bundle,
    read_decisions,
    register_candidate,
)
from pocketloop.registry.review import check_candidate
from pocketloop.registry.set_uses import newest_uses, uses_before, uses_of

pytestmark = pytest.mark.slow

HELDOUT, OTHER = "1" * 64, "2" * 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def judged_on(digest: str) -> EvaluationReport:
    return EVALUATION.model_copy(update={"sets": {"heldout": digest}})


def register(store: Home, folder: Path, content: str, digest: str, decision: GateDecision | None = None) -> Candidate:
    decision = decision or gates()
    files, bundle = sample_bundle(folder, content, decision=decision, adapter="counted")
    run = client(store).create_run(ensure_experiment(store, "retrain"))
    evaluation = judged_on(digest)
    return register_candidate(store, run.info.run_id, files, bundle, "# card", evaluation, decision, RELEASE)


def file_of(folder: Path) -> tuple[str, str]:
    return "adapter.gguf", sha256_file(folder / "adapter.gguf")


def test_every_version_that_a_set_decided_about_counts_once(store: Home, tmp_path: Path) -> None:
    assert newest_uses(store, "counted") == []
    first = register(store, tmp_path / "a", "a", HELDOUT)
    register(store, tmp_path / "b", "b", HELDOUT, gates("fail"))
    again = register(store, tmp_path / "again", "b", HELDOUT, gates("fail"))
    other = register(store, tmp_path / "c", "c", OTHER)
    assert [int(v.version) for v in (first, again, other)] == [1, 2, 3]
    assert uses_of(store, "counted", HELDOUT).decided == ["counted@1", "counted@2"]
    (use,) = newest_uses(store, "counted")
    assert (use.digest, use.items, use.decided) == (OTHER, 10, ["counted@3"])
    (before,) = uses_before(store, "counted", judged_on(HELDOUT), "adapter.gguf", "new").uses
    assert (before.set, before.decided) == ("heldout", ["counted@1", "counted@2"])


def test_a_run_that_is_repeated_counts_as_the_first_time(store: Home, tmp_path: Path) -> None:
    (before,) = uses_before(store, "counted", judged_on(HELDOUT), *file_of(_made(tmp_path, "b"))).uses
    assert before.decided == ["counted@1"]


def _made(folder: Path, content: str) -> Path:
    sample_bundle(folder / "same", content, adapter="counted")
    return folder / "same"


def test_outcomes_that_were_changed_after_registration_are_refused(store: Home, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    _, bundle = sample_bundle(folder, "with outcomes", adapter="counted")
    outcome = folder / "outcomes" / "heldout.adapter.jsonl"
    outcome.parent.mkdir()
    outcome.write_text('{"example_id":"a"}\n')
    decision = gates().model_copy(update={"evidence": {"outcomes/heldout.adapter.jsonl": sha256_file(outcome)}})
    digest = bundle_digest("counted", bundle.files, bundle.dataset_digest, bundle.base_digest, decision)
    bundle = bundle.model_copy(update={"digest": digest})
    write_json(folder / "bundle.json", bundle)
    write_json(folder / "gates.json", decision)
    run = client(store).create_run(ensure_experiment(store, "retrain"))
    found = register_candidate(
        store, run.info.run_id, Folder.of(folder), bundle, "# card", judged_on(HELDOUT), decision, RELEASE
    )
    with fetch_bundle(store, found) as fetched:
        assert (fetched / "outcomes" / "heldout.adapter.jsonl").is_file()
    assert read_decisions(store, "counted", 1) == [(f"counted@{found.version}", decision)]
    stored = next(p for p in store.mlflow_artifacts.rglob("heldout.adapter.jsonl"))
    stored.write_text('{"example_id":"b"}\n')
    with pytest.raises(ReviewRefused, match=r"outcomes/heldout\.adapter\.jsonl was changed after registration"):
        check_candidate(store, "counted", found.version)


def test_a_decision_from_before_evidence_was_kept_has_the_digest_that_it_had() -> None:
    gate = {"gate": "function_exact >= 0.8", "verdict": "pass", "observed": 0.9, "n": 10, "detail": "0.90"}
    then = sha256_text(canonical_json(["a", {}, "d", "b", {"verdict": "pass", "gates": [gate]}]))
    assert bundle_digest("a", {}, "d", "b", gates()) == then


def test_a_pass_whose_gates_are_not_all_passes_is_no_pass(store: Home, tmp_path: Path) -> None:
    undecided = gates("inconclusive").model_copy(update={"verdict": "pass"})
    found = register(store, tmp_path / "undecided", "undecided", HELDOUT, undecided)
    with pytest.raises(ReviewRefused, match="did not pass its gates: the verdict is 'inconclusive'"):
        check_candidate(store, "counted", found.version)
