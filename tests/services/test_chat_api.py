from collections.abc import Iterator

import openai
import pytest
from scripted_models import Says

from pocketloop.contracts.errors import ModelError
from pocketloop.services.chat_api import chat_app
from pocketloop.services.running import running
from pocketloop.tasks.tasks import TaskSpec

SPEC = TaskSpec("chat", None, system="Be kind.")


def last(conversation) -> str:
    if len(conversation[-1]["content"]) > 1000:
        raise ModelError("prompt 0 has 4000 tokens; the context holds 2048")
    return f"You said: {conversation[-1]['content']}"


@pytest.fixture
def served() -> Iterator[tuple[openai.OpenAI, Says]]:
    model = Says(last)
    with (
        running(chat_app(model, SPEC, "kind@1", 16)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client, model


def test_a_common_client_gets_the_adapters_answer(served) -> None:
    client, model = served
    reply = client.chat.completions.create(model="kind@1", messages=[{"role": "user", "content": "hi"}])
    assert reply.choices[0].message.content == "You said: hi"
    assert reply.choices[0].finish_reason == "stop"
    assert model.asked == [[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]]
    assert [item.id for item in client.models.list()] == ["kind@1"]


def test_a_callers_own_system_turn_replaces_the_recipes(served) -> None:
    client, model = served
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    client.chat.completions.create(model="kind@1", messages=turns)
    assert model.asked[0] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


@pytest.mark.parametrize("content", [None, "x" * 2000])
def test_what_cannot_be_answered_is_refused_and_the_server_goes_on(served, content) -> None:
    client, _ = served
    with pytest.raises(openai.BadRequestError):
        turns = [{"role": "user" if content else "nobody", "content": content or "hi"}]
        client.chat.completions.create(model="kind@1", messages=turns)
    assert client.chat.completions.create(model="kind@1", messages=[{"role": "user", "content": "hi"}]).choices
