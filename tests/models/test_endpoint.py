"""An OpenAI-compatible address as a Generator: what goes over the wire, and what becomes of an endpoint's faults."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pocketloop.contracts.errors import ConfigError
from pocketloop.models import openai_api
from pocketloop.models.answering import FAILURES_IN_A_ROW, answer_all, count_failures
from pocketloop.models.endpoint import EndpointConfig, EndpointGenerator, as_sent
from pocketloop.models.generators import (
    BROKEN_JSON,
    BUSY,
    EMPTY_REPLY,
    NO_CONNECTION,
    NOT_ASKED,
    REFUSED,
    SERVER_ERROR,
    TIMED_OUT,
    TOO_LONG,
    Generation,
)
from tests.labeling.judge_servers import FAULTS, JudgeServer, Request, html, nothing, say, send

TOOLS = [{"type": "function", "function": {"name": "set_timer", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = openai_api.pause
    monkeypatch.setattr(openai_api, "pause", lambda state: min(waited(state) / 100, 0.01))


def asked(count: int) -> list[list[dict[str, Any]]]:
    return [[{"role": "user", "content": f"request {number}"}] for number in range(count)]


def generator(server: JudgeServer, **config: Any) -> EndpointGenerator:
    settings = {"base_url": server.url, "model": "m", "timeout_s": 60, "attempts": 2, "parallel": 3} | config
    return EndpointGenerator(EndpointConfig.model_validate(settings))


def calls(*made: tuple[str, str], content: str | None = None) -> bytes:
    named = [
        {"id": f"c{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for at, (name, arguments) in enumerate(made)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": named}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(body).encode()


def test_answers_come_in_order_however_the_endpoint_orders_them() -> None:
    def slow_at_first(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
        if number == 1:
            server.over.wait(0.2)
        say(handler, request["messages"][-1]["content"].upper())

    with JudgeServer(slow_at_first) as server:
        answers = generator(server).generate(asked(20), 8)
    assert [answer.text for answer in answers] == [f"REQUEST {number}" for number in range(20)]
    assert answers[0] == Generation("REQUEST 0", 10, True)
    assert all(request["temperature"] == 0 and request["max_tokens"] == 8 for request in server.requests)


def test_functions_go_along_as_tools_and_calls_come_back_as_our_models_write_them() -> None:
    reply = calls(("set_timer", '{"minutes": 5}'), ("play", '{"title": "Für Elise"}'), content="Sure.")
    with JudgeServer(lambda _, handler, request, number: send(handler, 200, reply)) as server:
        (answer,) = generator(server, options={"chat_template_kwargs": {"enable_thinking": False}}).generate(
            asked(1), 8, TOOLS
        )
    (request,) = server.requests
    assert request["tools"] == TOOLS and request["chat_template_kwargs"] == {"enable_thinking": False}
    assert answer.text.splitlines() == [
        "Sure.",
        '{"function": "set_timer", "arguments": {"minutes": 5}}',
        '{"function": "play", "arguments": {"title": "Für Elise"}}',
    ]
    assert answer.finished and answer.tokens == 7


def test_without_functions_nothing_is_declared() -> None:
    with JudgeServer(lambda _, handler, request, number: say(handler, "ok")) as server:
        generator(server).generate(asked(1), 8)
    assert "tools" not in server.requests[0]


def test_earlier_calls_and_their_results_are_told_as_the_protocol_has_them() -> None:
    conversation = [
        {"role": "user", "content": "5 minutes, then music"},
        {
            "role": "assistant",
            "content": 'Sure.\n{"function": "set_timer", "arguments": {"minutes": 5}}\n'
            '{"function": "play", "arguments": {}}',
        },
        {"role": "tool", "content": "done"},
        {"role": "tool", "content": "playing"},
        {"role": "tool", "content": "a stray result"},
        {"role": "assistant", "content": '{"function": broken'},
    ]
    _, call, first, second, stray, words = as_sent(conversation, None)
    assert call["content"] == "Sure."
    assert [one["function"]["name"] for one in call["tool_calls"]] == ["set_timer", "play"]
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"minutes": 5}
    assert [first["tool_call_id"], second["tool_call_id"]] == [one["id"] for one in call["tool_calls"]]
    assert stray == {"role": "user", "content": "a stray result"}
    assert words == conversation[-1]
    assert as_sent(conversation[:2], None) == conversation[:2]  # nothing is declared, and no result told


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (FAULTS["stalls"], TIMED_OUT),
        (FAULTS["drips"], TIMED_OUT),
        (FAULTS["drops"], NO_CONNECTION),
        (FAULTS["fails"], SERVER_ERROR),
        (html, EMPTY_REPLY),
        (nothing, EMPTY_REPLY),
        (lambda _, handler, request, number: send(handler, 200, b'{"choices": ['), BROKEN_JSON),
        (lambda _, handler, request, number: send(handler, 429, b"{}", Retry_After="1"), BUSY),
        (lambda _, handler, request, number: send(handler, 429, b"{}", Retry_After="7200"), BUSY),
        (lambda _, handler, request, number: send(handler, 400, b'{"error": {"message": "no"}}'), REFUSED),
        (
            lambda _, handler, request, number: send(
                handler, 400, b'{"error": {"message": "This model\'s maximum context length is 8 tokens"}}'
            ),
            TOO_LONG,
        ),
        (lambda _, handler, request, number: send(handler, 200, calls(("f", '{"a": '))), BROKEN_JSON),
    ],
)
def test_each_fault_is_a_failed_answer_with_its_reason(respond: Callable[..., None], reason: str) -> None:
    def moody(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
        if request["messages"][-1]["content"] == "request 1":
            respond(server, handler, request, number)
        else:
            say(handler, "fine")

    patience = {"timeout_s": 10, "attempts": 1} if reason == TIMED_OUT else {"timeout_s": 60}
    with JudgeServer(moody) as server:
        answers = generator(server, **patience).generate(asked(4), 8)
    assert [answer.failure for answer in answers] == ["", reason, "", ""]
    assert answers[1].text == ""


def test_a_fault_now_and_then_is_mended_by_another_try() -> None:
    tries: Counter[str] = Counter()

    def moody(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
        asked_for = request["messages"][-1]["content"]
        tries[asked_for] += 1
        if asked_for.endswith("0") and tries[asked_for] < 3:
            send(handler, 500, b"{}")
        else:
            say(handler, "fine")

    with JudgeServer(moody) as server:
        answers = generator(server, attempts=3).generate(asked(30), 8)
    assert count_failures(answers) == {}
    assert [tries[f"request {number}"] for number in range(30)] == 3 * [3, *9 * [1]]


def test_an_endpoint_that_is_gone_is_given_up_and_the_evaluation_goes_on() -> None:
    with JudgeServer(FAULTS["fails"]) as server:
        answers = answer_all(generator(server), asked(200), 8)
        assert len(server.requests) <= 2 * (FAILURES_IN_A_ROW + 3)
    found = count_failures(answers)
    assert set(found) == {NOT_ASKED, SERVER_ERROR} and sum(found.values()) == 200


@pytest.mark.parametrize(("status", "hint"), [(401, "api_key_env"), (404, "the model's name")])
def test_a_wrong_key_or_address_is_an_error_that_says_what_to_check(status: int, hint: str) -> None:
    with (
        JudgeServer(lambda _, handler, request, number: send(handler, status, b"{}")) as server,
        pytest.raises(ConfigError, match=f"answered {status}.*{hint}"),
    ):
        answer_all(generator(server), asked(3), 8)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def listen(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
        seen.append(handler.headers["Authorization"])
        say(handler, "ok")

    monkeypatch.delenv("POCKET_KEY", raising=False)
    with JudgeServer(listen) as server:
        with pytest.raises(ConfigError, match="POCKET_KEY is not set"):
            generator(server, api_key_env="POCKET_KEY")
        monkeypatch.setenv("POCKET_KEY", "s3cret")
        generator(server, api_key_env="POCKET_KEY").generate(asked(1), 1)
    assert seen == ["Bearer s3cret"]
