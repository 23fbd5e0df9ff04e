import json
from pathlib import Path
from typing import Any

import pytest
from judge_servers import FAULTS, LIES, JudgeServer, honest, honest_server, reply, say

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Conversation
from pocketloop.contracts.loading import load_rubric
from pocketloop.contracts.recipe import Catalogue, JudgeEndpoint
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.reward import JudgeReward
from pocketloop.models import openai_api
from pocketloop.tasks.tasks import TaskSpec


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_api, "pause", lambda state: 0.0)


def timer(minutes: int) -> str:
    return json.dumps({"function": "set_timer", "arguments": {"minutes": minutes}})


def asked(minutes: int) -> Conversation:
    return [{"role": "system", "content": "Call."}, {"role": "user", "content": f"{minutes} minutes"}]


def reward(server: JudgeServer, functions: Catalogue, answers: AnswerCache, **config: Any) -> JudgeReward:
    endpoint = JudgeEndpoint.model_validate({"url": server.url, "model": "m", "timeout_s": 60, "samples": 1, **config})
    return JudgeReward(endpoint, load_rubric("right_answer"), TaskSpec("function_call", functions), answers)


def test_right_answers_earn_one_and_wrong_ones_nothing(functions: Catalogue) -> None:
    with honest_server() as server, AnswerCache(None) as answers:
        judge = reward(server, functions, answers)
        assert judge([asked(5), asked(5), asked(7)], [timer(5), timer(6), timer(7)]) == [1.0, 0.0, 1.0]
        assert judge.use.asked == 3


def test_unsound_answers_earn_nothing_and_nobody_is_asked(functions: Catalogue) -> None:
    unsound = ["", "Sure!", timer(5)[:-1], '{"function": "rm", "arguments": {}}', timer(0)]
    with honest_server() as server, AnswerCache(None) as answers:
        assert reward(server, functions, answers)([asked(5)] * 5, unsound) == [0.0] * 5
        assert server.requests == []


def test_an_answer_is_asked_about_once_in_both_orders_and_never_again(functions: Catalogue, tmp_path: Path) -> None:
    with honest_server() as server:
        with AnswerCache(tmp_path) as answers:
            judge = reward(server, functions, answers)
            assert judge([asked(5)] * 4, [timer(5)] * 4) == [1.0] * 4
            assert judge([asked(5)], [timer(5)]) == [1.0]
            assert len(server.requests) == 2
        with AnswerCache(tmp_path) as answers:
            again = reward(server, functions, answers)
            assert again([asked(5)], [timer(5)]) == [1.0]
            assert (len(server.requests), again.use.cached, again.use.tokens) == (2, 1, 0)


def test_a_verdict_that_depends_on_the_order_is_worth_half(functions: Catalogue) -> None:
    with (
        JudgeServer(lambda _, handler, request, number: say(handler, reply(request))) as server,
        AnswerCache(None) as answers,
    ):
        assert reward(server, functions, answers)([asked(5)], [timer(5)]) == [0.5]


def test_garbage_that_confuses_the_judge_does_not_pay(functions: Catalogue) -> None:
    def confused(server: JudgeServer, handler: Any, request: Any, number: int) -> None:
        garbled = "999" in request["messages"][1]["content"]
        LIES["prose"](server, handler, request, number) if garbled else say(handler, honest(request))

    with JudgeServer(confused) as server, AnswerCache(None) as answers:
        judge = reward(server, functions, answers, attempts=1)
        assert judge([asked(5), asked(999)], [timer(5), timer(999)]) == [1.0, 0.0]
        assert judge.use.failed == 1


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_an_endpoint_that_fails_is_one_clear_error(functions: Catalogue, fault: str) -> None:
    with JudgeServer(FAULTS[fault]) as server, AnswerCache(None) as answers:
        judge = reward(server, functions, answers, attempts=1, timeout_s=0.2)
        with pytest.raises(DataError, match=r"the judge m left 2 of 2 answers without a verdict: .+; see label\.llm"):
            judge([asked(5), asked(7)], [timer(5), timer(7)])


def test_a_spent_budget_is_an_error_and_what_was_asked_is_kept(functions: Catalogue, tmp_path: Path) -> None:
    batch = [asked(n) for n in range(1, 9)], [timer(n) for n in range(1, 9)]
    with honest_server() as server:
        with AnswerCache(tmp_path) as answers:
            with pytest.raises(DataError, match="budget of 1500 tokens is spent"):
                reward(server, functions, answers, budget_tokens=1500, parallel=1)(*batch)
            before = len(server.requests)
            assert 0 < before < 16
        with AnswerCache(tmp_path) as answers:
            assert reward(server, functions, answers)(*batch) == [1.0] * 8
        assert len(server.requests) == 16
