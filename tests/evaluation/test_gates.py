from typing import Any

import pytest

from pocketloop.contracts.exports import BudgetMeasure, BudgetReport
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    EvaluationReport,
    GateDecision,
    GateResult,
    ParityReport,
    ParityResult,
    SafetyCheck,
    SafetyReport,
    SetResult,
    SetUse,
    worst,
)
from pocketloop.evaluation.gates import decide
from pocketloop.evaluation.statistics import estimate
from pocketloop.evaluation.suite import Outcome
from pocketloop.models.generators import BROKEN_JSON, CRASHED

METRIC = "intent_accuracy"
FLOOR = {"metric": METRIC, "min": 0.9}
CHAMPION = {"metric": METRIC, "noninferior_to": "champion", "margin": 0.03}


def recipe(*gates: dict[str, Any]) -> Recipe:
    data = {"sources": [{"kind": "examples", "uri": "demo://intents"}]}
    return Recipe.model_validate(
        {"adapter": "intent", "task": "intent", "base": "tiny", "catalogue": "c.json", "data": data, "gates": gates}
    )


def scores(right: int, n: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def outcomes(values: list[float], prefix: str = "item") -> list[Outcome]:
    return [
        Outcome(example_id=f"{prefix}{i}", scores={METRIC: value}, answer="a", reference="a")
        for i, value in enumerate(values)
    ]


def parity(**changes: Any) -> ParityReport:
    result = {"name": "Q4_K_M", "tokens": 900, "token_ids_equal": True, "top1": 0.97, "kl": 0.01}
    result |= {"max_logit_difference": 0.1, "passed": True}
    return ParityReport(results=[ParityResult.model_validate(result)], adapter_effect=0.7, passed=True).model_copy(
        update=changes
    )


def safety(**changes: Any) -> SafetyReport:
    check = SafetyCheck(name="leaks", value=0, n=500, bound=0, passed=True).model_copy(update=changes)
    return SafetyReport(checks=[check], passed=check.passed)


def budget(**changes: Any) -> BudgetReport:
    measured = BudgetMeasure(
        format="gguf", quantization="Q4_K_M", measured=True, context=2048, base_bytes=4_000_000,
        adapter_bytes=1_000_000, resident_bytes=30_000_000, mapped_bytes=4_000_000, cache_bytes=6_000_000,
        bytes_per_token=11_000_000,
    )  # fmt: skip
    return BudgetReport(measures=[measured]).model_copy(update=changes)


def judge(*gates: dict[str, Any], **changes: Any) -> GateDecision:
    models: dict[str, list[float]] = {"adapter": scores(760, 800), "base": scores(0, 800)} | changes.pop("models", {})
    models = {"transformers": models["adapter"][:256]} | models
    results = [
        SetResult(model=name, set="heldout", metrics={METRIC: estimate(values)}, seconds=1, tokens=1)
        for name, values in models.items()
    ]
    given: dict[str, Any] = {
        "evaluation": EvaluationReport(results=results),
        "outcomes": {name: outcomes(values) for name, values in models.items()},
        "parity": parity(),
        "safety": safety(),
        "budget": budget(),
    } | changes
    return decide(recipe(*gates), **given)


def gate(decision: GateDecision, text: str) -> GateResult:
    (found,) = [result for result in decision.gates if text in result.gate]
    return found


def test_a_good_candidate_passes_every_gate() -> None:
    decision = judge(FLOOR, CHAMPION, models={"champion": scores(760, 800)})
    assert decision.verdict == "pass"
    assert [result.verdict for result in decision.gates] == ["pass"] * 7


def test_a_floor_says_whether_the_intervals_lower_end_clears_it_too() -> None:
    assert "lower end clears the floor too" in gate(judge(FLOOR), "≥ 0.9").detail
    close = gate(judge(FLOOR, models={"adapter": scores(724, 800)}), "≥ 0.9")
    assert (close.verdict, close.observed) == ("pass", 0.905)
    assert "lower end is below the floor" in close.detail


@pytest.mark.parametrize(
    ("right", "n", "verdict"),
    [(712, 800, "fail"), (19, 20, "inconclusive"), (17, 20, "inconclusive"), (2, 20, "fail"), (2000, 2000, "pass")],
    ids=["below", "too few", "too few and below", "few, but far below", "perfect"],
)
def test_a_floor_needs_enough_items_to_pass(right: int, n: int, verdict: str) -> None:
    decision = judge(FLOOR, models={"adapter": scores(right, n), "base": scores(0, n)})
    assert gate(decision, "≥ 0.9").verdict == verdict


def test_without_a_champion_non_inferiority_passes_and_says_so() -> None:
    result = gate(judge(CHAMPION), "below champion")
    assert (result.verdict, result.detail) == ("pass", "no champion yet")


def test_a_champion_that_was_not_measured_fails_rather_than_passes() -> None:
    unmeasured = {"adapter": outcomes(scores(760, 800)), "base": outcomes(scores(0, 800))}
    assert gate(judge(CHAMPION, models={"champion": scores(1, 2)}, outcomes=unmeasured), "champion").verdict == "fail"
    assert gate(judge(CHAMPION, outcomes={**unmeasured, "champion": []}), "champion").verdict == "fail"


def test_a_champion_that_is_better_by_more_than_the_margin_fails_the_candidate() -> None:
    decision = judge(CHAMPION, models={"adapter": scores(700, 800), "champion": scores(770, 800)})
    assert (decision.verdict, gate(decision, "champion").verdict) == ("fail", "fail")


def test_a_champion_that_could_not_be_heard_counts_as_right() -> None:
    """Otherwise a runtime that crashed on the champion would make any candidate as good."""
    found = {"adapter": outcomes(scores(700, 800)), "base": outcomes(scores(0, 800))}
    unheard = [one.model_copy(update={"failure": CRASHED}) for one in outcomes(scores(0, 800))]
    wordless = [one.model_copy(update={"failure": BROKEN_JSON}) for one in outcomes(scores(0, 800))]
    assert gate(judge(CHAMPION, outcomes={**found, "champion": unheard}), "champion").verdict == "fail"
    assert gate(judge(CHAMPION, outcomes={**found, "champion": wordless}), "champion").verdict == "pass"


def test_a_small_set_is_inconclusive_and_says_how_many_items_it_takes() -> None:
    elsewhere = scores(95, 100)[::-1]  # as good, and wrong on other items
    models = {"adapter": scores(95, 100), "base": scores(0, 100), "champion": elsewhere}
    result = gate(judge(CHAMPION, models=models), "champion")
    assert result.verdict == "inconclusive"
    assert "80 % with" in result.change


def test_outcomes_on_other_items_are_not_paired() -> None:
    other = {"adapter": outcomes(scores(9, 10)), "base": outcomes(scores(1, 10), prefix="another")}
    result = gate(judge(outcomes=other), "above base")
    assert (result.verdict, result.detail) == ("fail", "the adapter and base were not measured on the same items")


@pytest.mark.parametrize(
    ("lost", "n", "verdict"), [(0, 256, "pass"), (30, 256, "fail"), (0, 20, "inconclusive"), (9, 256, "inconclusive")]
)
def test_exported_files_must_score_as_the_adapter_does_in_transformers(lost: int, n: int, verdict: str) -> None:
    right = scores(700, 800)
    exported = [0.0] * lost + right[lost:]
    result = gate(judge(models={"adapter": exported, "transformers": right[:n]}), "below transformers")
    assert (result.verdict, result.n) == (verdict, n)
    assert result.observed == pytest.approx(-lost / n)


def test_files_that_were_not_compared_with_transformers_fail() -> None:
    alone = {"adapter": outcomes(scores(760, 800)), "base": outcomes(scores(0, 800))}
    result = gate(judge(outcomes=alone), "below transformers")
    assert (result.verdict, result.detail) == ("fail", "there are no outcomes of transformers")


def test_an_adapter_no_better_than_its_base_fails() -> None:
    assert gate(judge(models={"base": scores(760, 800)}), "above base").verdict == "fail"
    slightly = judge(models={"adapter": scores(402, 800), "base": scores(400, 800)})
    assert gate(slightly, "above base").verdict == "inconclusive"


def test_graded_scores_are_compared_with_the_base_as_well() -> None:
    better, worse = [0.6, 0.7, 0.8] * 100, [0.2, 0.3, 0.1] * 100
    assert gate(judge(models={"adapter": better, "base": worse}), "above base").verdict == "pass"
    assert gate(judge(models={"adapter": worse, "base": better}), "above base").verdict == "fail"


def test_a_gate_says_what_it_measured_and_what_would_change_it() -> None:
    decision = judge(FLOOR, CHAMPION, models={"champion": scores(750, 800)})
    floor, champion = gate(decision, "≥ 0.9"), gate(decision, "below champion")
    assert (floor.key, floor.bound, floor.test) == ("gates.0", 0.9, "floor")
    assert floor.change == "a pass until 40 more of the items are wrong"
    assert (champion.key, champion.against, champion.bound) == ("gates.1", "champion", -0.03)
    found = champion.measured
    assert found is not None and (found.wins, found.losses, found.n) == (10, 0, 800)
    assert found.low > -0.03 and found.p is not None and found.p < 1e-6
    assert "a pass until about 3" in champion.change
    assert gate(decision, "above base").test == "exact McNemar"


def test_worse_by_less_than_the_margin_passes_and_is_not_hidden() -> None:
    decision = judge(CHAMPION, models={"adapter": scores(1960, 2000), "champion": scores(1980, 2000)})
    result = gate(decision, "champion")
    assert result.verdict == "pass"
    assert "it is worse, by less than the margin (exact McNemar p = 9.5e-07)" in result.detail


def test_superiority_to_the_champion_can_be_asked_for() -> None:
    better = {"metric": METRIC, "superior_to": "champion"}
    assert gate(judge(better), "above champion").detail == "no champion yet"
    assert gate(judge(better, models={"champion": scores(730, 800)}), "champion").verdict == "pass"
    assert gate(judge(better, models={"champion": scores(758, 800)}), "champion").verdict == "inconclusive"
    assert gate(judge(better, models={"champion": scores(760, 800)}), "champion").verdict == "fail"
    by = {**better, "margin": 0.05}
    result = gate(judge(by, models={"champion": scores(730, 800)}), "more than 0.05 above champion")
    assert (result.verdict, result.test) == ("inconclusive", "paired bootstrap")


def test_the_turns_of_one_dialogue_are_no_independent_items() -> None:
    ours, theirs = outcomes(scores(790, 800)), outcomes(scores(800, 800))
    for found in (*ours, *theirs):
        found.dialogue = str(int(found.example_id.removeprefix("item")) // 20)
    together = gate(judge(CHAMPION, outcomes={"adapter": ours, "champion": theirs, "base": theirs}), "below champion")
    assert (together.n, together.verdict) == (40, "inconclusive")
    assert together.measured is not None and together.measured.losses == 1


LOCALES = ("en-US", "en-GB", "de-DE", "fr-FR", "es-ES")
EACH_LOCALE = {"metric": METRIC, "noninferior_to": "champion", "margin": 0.15, "slices": ["locale"]}


def in_locales(right: dict[str, int], each: int = 160, default: int = 150) -> list[Outcome]:
    """`each` items of every locale, of which `right` (or `default`) are answered right."""
    found = []
    for locale in LOCALES:
        for item in range(each):
            found.append(
                Outcome(
                    example_id=f"{locale}{item}",
                    scores={METRIC: float(item < right.get(locale, default))},
                    answer="a",
                    reference="a",
                    slices={"locale": locale},
                )
            )
    return found


def judge_locales(ours: list[Outcome], theirs: list[Outcome], *gates: dict[str, Any]) -> GateDecision:
    given = {
        "adapter": ours,
        "champion": theirs,
        "base": [o.model_copy(update={"scores": {METRIC: 0.0}}) for o in ours],
    }
    results = [
        SetResult(
            model=m, set="heldout", metrics={METRIC: estimate([o.scores[METRIC] for o in found])}, seconds=1, tokens=1
        )
        for m, found in given.items()
    ]
    return judge(*gates, outcomes=given, evaluation=EvaluationReport(results=results))


def test_a_candidate_that_lost_one_locale_only_fails_though_its_mean_may_pass() -> None:
    regressed = in_locales({"de-DE": 125})
    decision = judge_locales(regressed, in_locales({}), {**CHAMPION, "margin": 0.06}, EACH_LOCALE)
    overall, each = gate(decision, "0.06 below"), gate(decision, "in each locale")
    assert overall.verdict == "pass"
    assert each.verdict == "inconclusive"  # 25 of 160: neither within 15 points for sure, nor worse for sure
    broken = judge_locales(in_locales({"de-DE": 60}), in_locales({}), EACH_LOCALE)
    each = gate(broken, "in each locale")
    assert (broken.verdict, each.verdict, each.slices[0].name) == ("fail", "fail", "locale=de-DE")
    assert [one.verdict for one in each.slices] == ["fail", "pass", "pass", "pass", "pass"]
    assert "1 fail: locale=de-DE" in each.detail
    assert gate(judge_locales(in_locales({}), in_locales({}), EACH_LOCALE), "in each").verdict == "pass"


def test_many_slices_need_more_proof_than_one() -> None:
    theirs = in_locales({}, each=40, default=38)
    slightly = in_locales({"de-DE": 23}, each=40, default=38)  # 15 of 40 lost, 15 points allowed
    ours, others = ([o for o in found if o.slices["locale"] in ("de-DE", "en-US")] for found in (slightly, theirs))
    fewer = judge_locales(ours, others, EACH_LOCALE)
    many = judge_locales(slightly, theirs, EACH_LOCALE)
    p_of_two, p_of_five = (gate(found, "in each").slices[0].measured.p_against for found in (fewer, many))
    assert p_of_two and p_of_five == pytest.approx(p_of_two * 5 / 2)


def test_a_small_slice_can_fail_and_is_not_waited_for() -> None:
    ours, theirs = in_locales({}), in_locales({})
    kept = [at for at, o in enumerate(ours) if o.slices["locale"] != "fr-FR" or int(o.example_id[5:]) < 12]
    few = gate(judge_locales([ours[i] for i in kept], [theirs[i] for i in kept], EACH_LOCALE), "in each")
    assert few.verdict == "pass" and "1 of fewer than 30 items" in few.detail
    (small,) = [one for one in few.slices if one.small]
    assert (small.name, small.verdict) == ("locale=(other)", "inconclusive")
    lost = [
        ours[i].model_copy(update={"scores": {METRIC: 0.0}}) if "fr" in ours[i].example_id else ours[i] for i in kept
    ]
    assert gate(judge_locales(lost, [theirs[i] for i in kept], EACH_LOCALE), "in each").verdict == "fail"


def test_a_floor_can_be_asked_of_every_slice() -> None:
    every = {"metric": METRIC, "min": 0.8, "slices": ["all"]}
    assert gate(judge_locales(in_locales({}), in_locales({}), every), "in each all").verdict == "pass"
    assert gate(judge_locales(in_locales({"en-GB": 90}), in_locales({}), every), "in each").verdict == "fail"
    assert gate(judge_locales(in_locales({"en-GB": 127}), in_locales({}), every), "in each").verdict == "inconclusive"


def test_a_slice_that_no_item_has_fails_the_gate_and_names_those_there_are() -> None:
    result = gate(judge_locales(in_locales({}), in_locales({}), {**EACH_LOCALE, "slices": ["length"]}), "in each")
    assert result.verdict == "fail"
    assert result.detail == "the first evaluation set has no two slices by length; it has them by locale"


def test_a_set_that_has_decided_often_is_spent_and_the_decision_says_so() -> None:
    use = SetUse(set="heldout", digest="d" * 64, items=800)
    assert judge(CHAMPION, uses=[use]).warnings == []
    used = use.model_copy(update={"decided": [f"intent@{n}" for n in range(1, 21)]})
    (warning,) = judge(CHAMPION, uses=[used]).warnings
    assert "has decided 20 candidates before this one" in warning and "it is spent" in warning
    assert judge(CHAMPION, uses=[used]).verdict == "pass"


@pytest.mark.parametrize(
    "missing",
    [
        {"parity": None},
        {"parity": parity(results=[])},
        {"parity": parity(passed=False)},
        {"safety": None},
        {"safety": SafetyReport(checks=[], passed=True)},
        {"safety": safety(passed=False)},
        {"safety": safety(n=0)},
        {"budget": None},
        {"budget": budget(exceeded=["gguf: too large"])},
        {"outcomes": {}},
        {"evaluation": EvaluationReport(results=[])},
    ],
    ids=lambda value: next(iter(value)),
)
def test_what_was_not_measured_or_is_out_of_bounds_fails(missing: dict[str, Any]) -> None:
    assert judge(FLOOR, **missing).verdict == "fail"


def test_a_budget_that_is_exceeded_says_what_would_fit() -> None:
    kept = gate(judge(FLOOR), "budget")
    assert kept.verdict == "pass" and "adapter 1.00 MB, 30 MB held at 2,048 tokens" in kept.detail
    over = budget(exceeded=["gguf: the adapter takes 1.00 MB"], would_fit=["train.lora.r=8 export.context=512"])
    found = gate(judge(FLOOR, budget=over), "budget")
    assert found.verdict == "fail" and "would fit with --set train.lora.r=8 --set export.context=512" in found.detail
    assert "smaller base" in gate(judge(FLOOR, budget=budget(exceeded=["gguf: all"])), "budget").detail


def test_an_unknown_metric_fails() -> None:
    result = gate(judge({"metric": "intent_accurracy", "min": 0.1}), "intent_accurracy")
    assert (result.verdict, result.observed) == ("fail", None)


def test_measured_but_unbounded_safety_is_reported_and_does_not_fail() -> None:
    decision = judge(safety=safety(bound=None))
    assert gate(decision, "safety").verdict == "pass"


def test_fail_outranks_inconclusive_outranks_pass() -> None:
    assert worst(["pass", "inconclusive", "fail"]) == "fail"
    assert worst(["pass", "inconclusive", "pass"]) == "inconclusive"
    assert worst(["pass"]) == "pass"
    assert worst([]) == "fail"
