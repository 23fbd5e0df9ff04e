"""Verdicts computed again from what a bundle keeps, and what happens when somebody touches it."""

import json
from pathlib import Path

import pytest
from evaluation_samples import sample_evidence

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.contracts.reports import GateDecision
from pocketloop.evaluation.evidence import Evidence, changed_evidence, read_evidence, write_evidence
from pocketloop.evaluation.explain import explain


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return sample_evidence(800)


@pytest.fixture
def bundle(tmp_path: Path, evidence: Evidence) -> Path:
    named = write_evidence(tmp_path, evidence)
    write_json(tmp_path / "gates.json", evidence.decision().model_copy(update={"evidence": named}))
    return tmp_path


def test_what_is_kept_gives_the_same_decision(bundle: Path, evidence: Evidence) -> None:
    found = explain(bundle)
    assert found.stands, found.problems
    assert found.recomputed is not None
    assert found.recomputed.gates == found.recorded.gates
    assert read_evidence(bundle) == evidence


def test_no_text_is_kept_with_the_outcomes(bundle: Path) -> None:
    for path in (bundle / "outcomes").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert {key for row in rows for key in row} <= set(sample_keys())


def sample_keys() -> list[str]:
    from pocketloop.evaluation.suite import Outcome

    return list(Outcome.model_fields)


def test_outcomes_that_were_changed_are_noticed_twice(bundle: Path) -> None:
    path = bundle / "outcomes" / "heldout.adapter.jsonl"
    path.write_text(path.read_text().replace('"function_exact":0.0', '"function_exact":1.0'))
    found = explain(bundle)
    assert not found.stands
    assert "outcomes/heldout.adapter.jsonl is not what the verdict was made from" in found.problems[0]
    assert any("function_exact" in problem and "recorded" in problem for problem in found.problems[1:])


def test_outcomes_that_were_changed_together_with_their_digest_do_not_give_the_verdict(bundle: Path) -> None:
    path = bundle / "outcomes" / "heldout.champion.jsonl"
    path.write_text(path.read_text().replace('"function_exact":1.0', '"function_exact":0.0'))
    decision = GateDecision.model_validate_json((bundle / "gates.json").read_bytes())
    decision.evidence["outcomes/heldout.champion.jsonl"] = sha256_file(path)
    write_json(bundle / "gates.json", decision)
    found = explain(bundle)
    assert not found.stands
    assert any("below champion" in problem for problem in found.problems)
    assert any("function_exact of champion on heldout" in problem for problem in found.problems)


def test_a_verdict_that_was_changed_does_not_follow(bundle: Path) -> None:
    decision = GateDecision.model_validate_json((bundle / "gates.json").read_bytes())
    decision.verdict = "pass"
    for gate in decision.gates:
        gate.verdict = "pass"
    write_json(bundle / "gates.json", decision.model_copy(update={"gates": decision.gates[1:]}))
    problems = explain(bundle).problems
    assert any("it was not recorded" in problem for problem in problems)


@pytest.mark.parametrize("name", ["safety.json", "outcomes/heldout.base.jsonl", "recipe.json", "uses.json"])
def test_evidence_that_is_gone_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    found = explain(bundle)
    assert not found.stands
    assert found.problems[0].startswith(name)


def test_outcomes_that_were_added_are_noticed(bundle: Path, evidence: Evidence) -> None:
    (bundle / "outcomes" / "heldout.friend.jsonl").write_text("")
    assert changed_evidence(bundle, explain(bundle).recorded) == ["outcomes/heldout.friend.jsonl"]


def test_a_line_that_is_no_outcome_is_a_problem_and_no_crash(bundle: Path) -> None:
    (bundle / "outcomes" / "heldout.base.jsonl").write_text("{broken\n")
    assert any("no outcome that can be read" in problem for problem in explain(bundle).problems)


def test_a_version_from_before_outcomes_were_kept_says_so(tmp_path: Path, evidence: Evidence) -> None:
    write_json(tmp_path / "gates.json", evidence.decision())
    assert explain(tmp_path).problems == ["its outcomes were not kept: nothing can be recomputed"]
    with pytest.raises(DataError, match="no gates.json there"):
        explain(tmp_path / "nowhere")
