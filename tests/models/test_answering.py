import json
from collections.abc import Sequence
from typing import Any

import pytest

from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.events import Conversation
from pocketloop.models.answering import FAILURES_IN_A_ROW, Answered, answer_all, count_failures
from pocketloop.models.generators import BROKEN_JSON, CRASHED, NOT_ASKED, TIMED_OUT, TOO_LONG, Generation, failed


def conversations(count: int) -> list[Conversation]:
    return [[{"role": "user", "content": str(number)}] for number in range(count)]


class Fragile:
    """Echoes, but raises on the conversations that `errors` names; counts what it is asked."""

    def __init__(self, errors: dict[int, Exception | Generation]) -> None:
        self.errors = errors
        self.calls: list[int] = []

    def generate(self, asked: Sequence[Conversation], *_: Any) -> list[Generation]:
        self.calls.append(len(asked))
        numbers = [int(one[-1]["content"]) for one in asked]
        for number in numbers:
            if isinstance(error := self.errors.get(number), Exception):
                raise error
        found = [self.errors.get(number, Generation(str(number), 1, True)) for number in numbers]
        return [answer for answer in found if isinstance(answer, Generation)]


def test_one_bad_conversation_takes_no_other_with_it() -> None:
    errors: dict[int, Exception | Generation] = {
        3: TimeoutError("late"),
        77: json.JSONDecodeError("no", "{", 0),
        78: ModelError("it crashed"),
        200: failed(TOO_LONG),
        299: RuntimeError("out of memory"),
    }
    answers = answer_all(Fragile(errors), conversations(300), 8)
    assert [answer.text for answer in answers] == ["" if at in errors else str(at) for at in range(300)]
    assert count_failures(answers) == {CRASHED: 2, TIMED_OUT: 1, BROKEN_JSON: 1, TOO_LONG: 1}
    assert answers[77].failure == BROKEN_JSON and answers[78].failure == CRASHED


def test_a_generator_that_fails_again_and_again_is_not_asked_any_more() -> None:
    generator = Fragile({number: TimeoutError() for number in range(500)})
    answers = answer_all(generator, conversations(500), 8)
    assert count_failures(answers) == {NOT_ASKED: 500 - FAILURES_IN_A_ROW, TIMED_OUT: FAILURES_IN_A_ROW}
    assert len(generator.calls) < 4 * FAILURES_IN_A_ROW


def test_prompts_that_are_too_long_do_not_make_a_generator_a_failing_one() -> None:
    answers = answer_all(Fragile({number: failed(TOO_LONG) for number in range(50)}), conversations(60), 8)
    assert count_failures(answers) == {TOO_LONG: 50}


def test_too_few_answers_are_failures_and_are_not_given_to_others() -> None:
    class Forgetful(Fragile):
        def generate(self, asked: Sequence[Conversation], *rest: Any) -> list[Generation]:
            return [answer for answer in super().generate(asked, *rest) if answer.text != "5"]

    answers = answer_all(Forgetful({}), conversations(20), 8)
    assert [at for at, answer in enumerate(answers) if answer.failure] == [5]
    assert answers[6].text == "6"


def test_a_wrong_configuration_is_an_error_and_no_failed_answer() -> None:
    with pytest.raises(ConfigError):
        answer_all(Fragile({2: ConfigError("no key")}), conversations(5), 8)


def test_progress_tells_how_far_it_is_and_how_long_it_will_take() -> None:
    told: list[Answered] = []
    answer_all(Fragile({1: TimeoutError()}), conversations(200), 8, on_progress=told.append, before=100)
    assert [one.done for one in told][-1] == 300 and told[0].done == 164
    assert all(one.total == 300 and one.failures == 1 for one in told)
    assert str(Answered(164, 300, 8.0, 1, 100)) == "164 of 300, 8.0 items/s, 0:17 left, 1 failed"


def test_nothing_to_answer_asks_nothing() -> None:
    generator = Fragile({})
    assert answer_all(generator, [], 8) == [] and generator.calls == []
