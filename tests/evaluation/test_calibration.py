"""How sure a router may be."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, make_example
from pocketloop.contracts.recipe import Catalogue
from pocketloop.evaluation.calibration import calibrate
from pocketloop.evaluation.routing import calibration_error
from pocketloop.tasks.tasks import TaskSpec

TASK = TaskSpec("intent", Catalogue(labels=["a", "b"]))
END, CUT, TOO_MUCH = 2, 3, 4


class Oracle:
    """Answers `a` with a known chance of being right, and logits that are `sharpness` times too far apart."""

    def __init__(self, sharpness: float) -> None:
        self.sharpness = sharpness
        self.tokenizer = self
        self.texts = {(0,): "a", (1,): "b", (CUT,): "c"}

    def apply_chat_template(self, messages: Any, **_: Any) -> str:
        return str(messages[-1]["content"])

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(text)] for text in texts]}

    def fits(self, prompt: list[int]) -> bool:
        return prompt[0] != TOO_MUCH

    def decode(self, ids: list[int], **_: Any) -> str:
        return self.texts[tuple(ids)]

    def generate_ids(self, prompts: list[list[int]], most: int) -> list[list[int]]:
        return [[CUT, END] if prompt[0] < 0 else [0, END] for prompt in prompts]

    def logits(self, rows: list[list[int]]) -> list[Any]:
        chance = rows[0][0] / 1000
        first = self.sharpness * np.log([chance, 1 - chance, 1e-9, 1e-9])
        return [np.array([first, [-99, -99, 0, -99], np.zeros(4)], dtype=np.float32)]


def examples(n: int, seed: int) -> list[Example]:
    """Prompts that say in thousandths how likely `a` is, and labels drawn so."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        chance = int(rng.integers(550, 990))
        label = "a" if rng.random() < chance / 1000 else "b"
        turns = [Message(role="user", content=str(chance)), Message(role="assistant", content=label)]
        made.append(make_example("intent", turns, source=str(number)))
    return made


@pytest.mark.parametrize("sharpness", [0.6, 1.0, 2.5])
def test_the_temperature_undoes_how_much_too_sure_the_model_is(sharpness: float) -> None:
    found = calibrate(Oracle(sharpness), examples(500, 1), examples(500, 2), TASK, 8)  # type: ignore[arg-type]
    assert found is not None
    found, confidences = found
    assert len(confidences) == len({example.example_id for example in examples(500, 2)})
    assert all(0 < value < 1 for value in confidences.values())
    assert found.fitted == pytest.approx(sharpness, rel=0.25)
    assert found.error_after < 0.08
    if sharpness != 1.0:
        assert found.error_after < found.error_before and found.temperature == found.fitted


def test_a_temperature_that_does_not_hold_for_other_messages_is_not_used() -> None:
    sure = [example for example in examples(2000, 1) if int(example.prompt[0].content) > 900 and right(example)]
    wrong = [example for example in examples(2000, 2) if not right(example)]
    found = calibrate(Oracle(1.0), sure, wrong, TASK, 8)  # type: ignore[arg-type]
    assert found is not None
    found, confidences = found
    assert found.fitted < 1
    (first, *_) = wrong
    assert confidences[first.example_id] == pytest.approx(int(first.prompt[0].content) / 1000, abs=1e-3)
    assert found.error_after > found.error_before and found.temperature == 1


def right(example: Example) -> bool:
    return example.answer.content == "a"


def test_without_a_label_among_the_answers_there_is_nothing_to_calibrate() -> None:
    turns = [Message(role="user", content="-1"), Message(role="assistant", content="a")]
    none = [make_example("intent", turns, source="s")]
    assert calibrate(Oracle(1.0), none, none, TASK, 8) is None  # type: ignore[arg-type]


def test_a_confidence_that_holds_has_no_error_and_one_that_boasts_has() -> None:
    right = SimpleNamespace(all=np.ones(100, dtype=bool), half=np.arange(100) % 2 == 0)
    assert calibration_error(np.full(100, 1.0), right.all) == pytest.approx(0)
    assert calibration_error(np.full(100, 0.5), right.half) == pytest.approx(0)
    assert calibration_error(np.full(100, 0.9), right.half) == pytest.approx(0.4)


def test_prompts_that_do_not_fit_have_no_confidence_and_stop_nothing() -> None:
    long = make_example(
        "intent",
        [Message(role="user", content=str(TOO_MUCH)), Message(role="assistant", content="a")],
        source="long",
    )
    found = calibrate(Oracle(1.0), [long, *examples(50, 1)], [*examples(50, 2), long], TASK, 8)  # type: ignore[arg-type]
    assert found is not None and (found.calibration.n, found.calibration.heldout) == (50, 50)
    assert found.confidences[long.example_id] == 0.0
