"""How many items gates need, and sets that have decided."""

import pytest
from evaluation_samples import sample_evidence

from pocketloop.contracts.examples import IntentRow, example_from_row
from pocketloop.contracts.reports import SetUse
from pocketloop.evaluation.planning import ASSUMED_DISCORDANCE, plan_gates
from pocketloop.evaluation.spent import adaptive_bound, lucky_by, set_digest, spent_warning
from pocketloop.evaluation.statistics import chance_to_pass, pairs_needed

EVIDENCE = sample_evidence(400)


def test_without_a_version_discordance_is_assumed_and_said_to_be() -> None:
    planned = {gate.gate: gate for gate in plan_gates(EVIDENCE.recipe, margin=0.02)}
    found = planned["function_exact not more than 0.02 below champion"]
    assert (found.share, found.needed) == (ASSUMED_DISCORDANCE, pairs_needed(ASSUMED_DISCORDANCE, 0.02))
    assert "assumed" in found.source and found.chance is None and found.enough is None
    floor = planned["function_name ≥ 0.9"]
    assert (floor.share, floor.source) == (0.9, "the floor itself")
    assert planned["function_exact above base"].gain == 0.05


def test_with_versions_it_is_what_they_showed() -> None:
    decision = EVIDENCE.decision()
    seen = [("functions@2", decision)]
    planned = {gate.gate: gate for gate in plan_gates(EVIDENCE.recipe, seen, items=400)}
    found = planned["function_exact not more than 0.03 below champion"]
    measured = next(gate.measured for gate in decision.gates if gate.gate == found.gate)
    assert measured is not None
    assert found.share == pytest.approx((measured.wins + measured.losses) / 400)
    assert found.source == "functions@2 and champion differed so often"
    assert found.chance == pytest.approx(chance_to_pass(400, found.share, 0.03))
    assert found.enough is False
    slices = planned["function_exact not more than 0.2 below champion in each locale"]
    assert slices.items == 80
    base = planned["function_exact above base"]
    assert base.enough and base.gain and base.gain > 0.7


def test_a_recipe_that_compares_with_nothing_is_planned_for_the_margin_that_is_asked() -> None:
    recipe = EVIDENCE.recipe.model_copy(update={"gates": []})
    assert [gate.key for gate in plan_gates(recipe, margin=0.05)] == ["--margin", ""]


def test_a_set_is_known_by_its_items_alone() -> None:
    rows = [example_from_row(IntentRow(input=f"text {i}", output="a"), source="x") for i in range(5)]
    assert set_digest(rows) == set_digest(rows[::-1])
    assert set_digest(rows) != set_digest(rows[1:])


def test_a_set_is_spent_where_luck_is_half_a_margin() -> None:
    use = SetUse(set="heldout", digest="1" * 64, items=800, decided=["a@1"])
    assert spent_warning(use, 0.85, 0.05) == ""
    often = use.model_copy(update={"decided": [f"a@{n}" for n in range(30)]})
    assert "is spent" in spent_warning(often, 0.85, 0.05)
    assert spent_warning(use.model_copy(update={"decided": []}), 0.85, 1e-9) == ""


def test_luck_and_the_adaptive_bound_grow_with_every_decision_and_shrink_with_items() -> None:
    assert lucky_by(2, 800, 0.85) < lucky_by(10, 800, 0.85) < lucky_by(10, 200, 0.85)
    assert lucky_by(10, 800, 0.85) == pytest.approx(0.0271, abs=1e-4)
    assert adaptive_bound(0, 800) == pytest.approx(0.0433, abs=1e-4)
    assert adaptive_bound(0, 800) < adaptive_bound(20, 800) < adaptive_bound(20, 200)
