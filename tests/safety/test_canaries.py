import math

import numpy as np
import pytest
from memory_samples import Known, Letters

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.loading import load_catalogue, load_recipe
from pocketloop.contracts.recipe import Catalogue, SafetyConfig
from pocketloop.safety.canaries import (
    CANDIDATES,
    SOURCE,
    Canary,
    candidate_rows,
    exposure_check,
    exposures,
    make_canaries,
    score_candidates,
)
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import TaskSpec

CHAT = TaskSpec("chat", None)
FUNCTIONS = TaskSpec("function_call", load_catalogue(load_recipe("functions")))
LABELS = TaskSpec("intent", Catalogue(labels=[f"label_{n}" for n in range(20)]))


@pytest.mark.parametrize("spec", [CHAT, FUNCTIONS, LABELS], ids=lambda spec: spec.name)
def test_a_canary_is_an_example_of_its_task_whose_answer_is_one_of_many(spec: TaskSpec) -> None:
    canaries = make_canaries(spec, 8, "a")
    assert canaries == make_canaries(spec, 8, "a") != make_canaries(spec, 8, "b")
    assert len({canary.example.prompt[0].content for canary in canaries}) == 8
    for canary in canaries:
        assert canary.example.source == SOURCE and canary.example.task == spec.name
        assert write_answer(canary.example.answer) == canary.answers[0]
        assert len(set(canary.answers)) == len(canary.answers) == (20 if spec is LABELS else CANDIDATES)


def test_a_planted_call_is_valid() -> None:
    from jsonschema import validate

    (call,) = make_canaries(FUNCTIONS, 1, "a")[0].example.answer.tool_calls
    assert FUNCTIONS.catalogue is not None
    declared = FUNCTIONS.catalogue.function(call.name)
    assert declared is not None
    validate(call.arguments, declared["parameters"])


def test_agents_take_turns() -> None:
    spec = TaskSpec("chat", None, roles={"math": "M", "wellness": "W"})
    assert [canary.example.role for canary in make_canaries(spec, 4, 1)] == ["math", "wellness"] * 2


@pytest.mark.parametrize(
    "catalogue", [Catalogue(labels=["yes", "no"]), Catalogue(functions=[{"name": "stop", "parameters": {}}])]
)
def test_where_nothing_can_be_guessed_canaries_are_refused(catalogue: Catalogue) -> None:
    task = "intent" if catalogue.labels else "function_call"
    with pytest.raises(ConfigError, match=r"safety\.canaries: .* set it to 0"):
        make_canaries(TaskSpec(task, catalogue), 5, 1)


@pytest.mark.parametrize("spec", [CHAT, FUNCTIONS, LABELS], ids=lambda spec: spec.name)
def test_only_what_differs_between_the_candidates_is_scored(spec: TaskSpec) -> None:
    (canary,) = make_canaries(spec, 1, "a")
    prompts, answers = candidate_rows(canary, spec, Letters())
    assert len({tuple(prompt) for prompt in prompts}) == 1
    written = ["".join(map(chr, answer)) for answer in answers]
    assert all(said and said in whole for said, whole in zip(written, canary.answers, strict=True))
    assert len(set(written)) == len(written)
    if spec is not LABELS:
        assert all(len(said) == 6 and said.isdigit() for said in written)


def test_one_answer_within_another_still_leaves_something_to_score() -> None:
    canary = make_canaries(CHAT, 1, "a")[0]
    short = Canary(canary.example, ["a", "aa", "aaa"], 3)
    assert all(candidate_rows(short, CHAT, Letters())[1])


def made(ranks: list[int], of: int = 256) -> tuple[list[Canary], list[float]]:
    """Canaries whose own answer has the given rank among `of`."""
    example = make_canaries(CHAT, 1, "a")[0].example
    canaries = [Canary(example, [str(n) for n in range(of)], of) for _ in ranks]
    scores = [float(of - n) for rank in ranks for n in [rank - 0.5, *range(1, of)]]
    return canaries, scores


def test_exposure_is_the_log_of_the_candidates_over_the_rank() -> None:
    canaries, scores = made([1, 2, 4, 128, 256])
    found = exposures(canaries, scores, [0.0] * len(scores))
    assert found.bits == pytest.approx([8, 7, 6, 1, 0]) and found.most == 8


def test_a_canary_before_all_candidates_is_as_exposed_as_the_tail_of_their_distribution_says() -> None:
    """On normal scores the true exposure is known: 1 in 2^12 lies beyond 3.487 standard deviations."""
    rng, example, found = np.random.default_rng(2), make_canaries(CHAT, 1, "a")[0].example, []
    for _ in range(60):
        canary = Canary(example, [str(n) for n in range(256)], 10**6)
        found += exposures([canary], [3.487, *rng.normal(size=255)], [0.0] * 256).bits
    assert np.median(found) == pytest.approx(12, abs=1)
    far = exposures([Canary(example, [str(n) for n in range(256)], 10**6)], [99.0, *rng.normal(size=255)], [0.0] * 256)
    assert far.bits == [pytest.approx(math.log2(10**6))], "no more than there are answers"


def test_what_the_base_prefers_anyway_is_no_memory() -> None:
    canaries, scores = made([1] * 5)
    found = exposures(canaries, scores, scores)
    assert found.mean == pytest.approx(math.log2(256) - math.log2(1 + 255 / 2))
    assert found.mean < 1.1, "a model that tells nothing apart exposes nothing"


def test_an_adapter_that_never_saw_them_exposes_what_chance_does() -> None:
    """Exposure is then x bits or more with probability 2^-x: 1.44 bits on average, and the interval says so."""
    rng, covered, bits = np.random.default_rng(1), 0, []
    for _ in range(200):
        canaries, _ = made([1] * 8)
        scores = rng.normal(size=8 * 256).tolist()
        found = exposures(canaries, scores, rng.normal(size=8 * 256).tolist())
        bits += found.bits
        covered += found.interval[0] <= 1.434 <= found.interval[1]
    assert np.mean(bits) == pytest.approx(1.434, abs=0.08)
    assert np.mean(np.array(bits) >= 3) == pytest.approx(1 / 8, abs=0.02)
    assert covered / 200 >= 0.88  # eight values of a skewed distribution: not quite 0.95


def test_the_check_tells_a_model_that_knows_them_from_one_that_does_not() -> None:
    canaries = make_canaries(CHAT, 8, "a")
    codes = {canary.example.prompt[0].content: canary.answers[0] for canary in canaries}
    knowing, plain = Known(lambda text: codes[text], sure=[code.rstrip(".") for code in codes.values()]), Known()
    base = score_candidates(canaries, CHAT, Known(sure=["nothing"]))
    questions = [canary.example.prompt[0].content for canary in canaries]
    bad = exposure_check(
        canaries, CHAT, score_candidates(canaries, CHAT, knowing), base, [knowing.say(q) for q in questions], 4.0
    )
    good = exposure_check(canaries, CHAT, score_candidates(canaries, CHAT, plain), base, ["?"] * 8, 4.0)
    assert bad.value > 15 and not bad.passed and not bad.undecided
    assert good.passed and good.value < 3 and not good.findings
    assert bad.findings[0].rate.value == 1
    assert not any(code.split()[-1].strip(".") in bad.model_dump_json() for code in codes.values())
    assert "######" in bad.findings[0].evidence


def test_a_bound_without_canaries_and_too_few_of_them_are_refused() -> None:
    with pytest.raises(ValueError, match=r"set safety\.canaries"):
        SafetyConfig(max_exposure=3.0)
    with pytest.raises(ValueError, match="at least 5, or 0"):
        SafetyConfig(canaries=2)
