"""Any OpenAI-compatible address as a Generator: an adapter that is served (vLLM, llama.cpp), or a cloud model."""

import asyncio
import json
import os
from collections.abc import Coroutine, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.events import Conversation, written_call
from pocketloop.models import openai_api
from pocketloop.models.answering import FAILURES_IN_A_ROW
from pocketloop.models.chat import encode_prompts
from pocketloop.models.generators import (
    BROKEN_JSON,
    EMPTY_REPLY,
    NOT_ASKED,
    NOT_RENDERED,
    TOO_LONG,
    Generation,
    failed,
)
from pocketloop.models.openai_api import LONGEST_PAUSE_S, Busy, Declined, Fault, Refused, Trouble, Unusable

_CALL = '{"function"'


class EndpointConfig(BaseModel):
    """An OpenAI-compatible address and one of its models.

    `api_key_env` names the environment variable that holds the key. A request has `timeout_s` seconds and is tried
    `attempts` times; `parallel` are under way at once. `options` go into every request beside what is asked for
    (`{"chat_template_kwargs": {"enable_thinking": false}}`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """As the endpoint's own documentation gives it, usually ending in `/v1`."""
    model: str
    api_key_env: str = ""
    timeout_s: float = Field(default=60, gt=0)
    attempts: int = Field(default=4, ge=1)
    parallel: int = Field(default=8, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)


class EndpointGenerator:
    """Greedy answers of a model behind an address, several at once.

    Without a `tokenizer` the endpoint renders the conversation with the model's own chat template (`chat/completions`):
    functions go along as `tools`, earlier calls and their results as the protocol has them, and calls in the answer
    come back as a model of ours writes them. With one, prompts are rendered here as for every other backend, and sent
    as token ids (`completions`).

    A request that fails is repeated with growing, random pauses, or after the pause that the endpoint asks for; after
    `attempts` it is a failed `Generation`. After `FAILURES_IN_A_ROW` of those the endpoint counts as out of order and
    is asked nothing more.

    Args:
        config: the address.
        tokenizer: a transformers tokenizer with the chat template that the model was trained with.
        context: with a tokenizer, longest prompt and answer together, in tokens.

    Raises:
        ConfigError: `api_key_env` names a variable that is not set.
    """

    def __init__(self, config: EndpointConfig, *, tokenizer: Any = None, context: int | None = None) -> None:
        if config.api_key_env and not os.environ.get(config.api_key_env):
            raise ConfigError(f"api_key_env: environment variable {config.api_key_env} is not set")
        self.config = config
        self.tokenizer = tokenizer
        self.context = context
        self._in_a_row = 0

    def generate(
        self, conversations: Sequence[Conversation], max_new_tokens: int, tools: list[dict[str, Any]] | None = None
    ) -> list[Generation]:
        """Answer each conversation with at most `max_new_tokens` tokens, in order.

        Raises:
            ConfigError: the endpoint refuses to be asked at all (key, address, model).
        """
        if self.tokenizer is None:
            asked: list[Any] = [as_sent(conversation, tools) for conversation in conversations]
        else:
            asked = encode_prompts(self.tokenizer, conversations, tools)
        return asyncio.run(self._answer_all(asked, max_new_tokens, tools))

    async def _answer_all(
        self, asked: list[Any], max_new_tokens: int, tools: list[dict[str, Any]] | None
    ) -> list[Generation]:
        answers = [failed(NOT_ASKED)] * len(asked)
        waiting = iter(enumerate(asked))
        key = os.environ[self.config.api_key_env] if self.config.api_key_env else "none"

        async def worker() -> None:
            for place, one in waiting:
                answers[place] = await self._answer(client, one, max_new_tokens, tools)

        async with openai_api.open_client(self.config.base_url, key, self.config.timeout_s) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.config.parallel, len(asked))):
                        group.create_task(worker())
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        return answers

    async def _answer(self, client: Any, one: Any, max_new_tokens: int, tools: Any) -> Generation:
        import tenacity

        if one is None:
            return failed(NOT_RENDERED)
        if self.tokenizer is not None and self.context is not None and len(one) >= self.context:
            return failed(TOO_LONG)
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.config.attempts),
            wait=openai_api.pause,
            retry=tenacity.retry_if_exception(_worth_another_try),
            reraise=True,
        )
        try:
            answer: Generation = await attempts(self._once, client, one, max_new_tokens, tools)
        except Refused as error:
            raise ConfigError(
                f"{self.config.base_url} answered {error.status} when asked for {self.config.model}; check "
                + ("its address and the model's name" if error.status == 404 else "`api_key_env`")
            ) from None
        except Declined as error:
            return failed(error.reason)
        except Trouble as error:
            self._in_a_row += 1
            return failed(error.reason)
        return answer

    async def _once(self, client: Any, one: Any, max_new_tokens: int, tools: Any) -> Generation:
        """One request. It is not made when the endpoint is out of order."""
        if self._in_a_row >= FAILURES_IN_A_ROW:
            return failed(NOT_ASKED)
        reply = await openai_api.within(self._request(client, one, max_new_tokens, tools), self.config.timeout_s)
        self._in_a_row = 0
        return read_reply(reply)

    def _request(self, client: Any, one: Any, max_new_tokens: int, tools: Any) -> Coroutine[Any, Any, Any]:
        common = {
            "model": self.config.model,
            "max_tokens": max_new_tokens,
            "temperature": 0.0,
            "extra_body": self.config.options or None,
        }
        if self.tokenizer is not None:
            if self.context is not None:
                common["max_tokens"] = min(max_new_tokens, self.context - len(one))
            made: Coroutine[Any, Any, Any] = client.completions.create(prompt=one, **common)
        else:
            made = client.chat.completions.create(messages=one, **({"tools": tools} if tools else {}), **common)
        return made


def as_sent(conversation: Conversation, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The conversation as the protocol has it.

    Where functions are declared, or their results are told, a call that the assistant wrote as a line of its text
    becomes one of its `tool_calls`, and a result names its call. Endpoints refuse results that belong to none: those
    are told as the user's words.
    """
    if not tools and all(turn["role"] != "tool" for turn in conversation):
        return list(conversation)
    sent: list[dict[str, Any]] = []
    open_calls: list[str] = []
    made = 0
    for turn in conversation:
        if turn["role"] == "assistant":
            words, calls = _split(turn["content"])
            open_calls = [f"call_{made + number}" for number in range(len(calls))]
            made += len(calls)
            named = [
                {"id": name, "type": "function", "function": call} for name, call in zip(open_calls, calls, strict=True)
            ]
            sent.append({**turn, "content": words, **({"tool_calls": named} if named else {})})
        elif turn["role"] == "tool":
            belongs = {"tool_call_id": open_calls.pop(0)} if open_calls else {"role": "user"}
            sent.append({**turn, **belongs})
        else:
            sent.append(turn)
    return sent


def _split(text: str) -> tuple[str, list[dict[str, str]]]:
    """The words of a turn, and the calls that stand on lines of their own."""
    words, calls = [], []
    for line in text.split("\n"):
        call = _call(line) if line.startswith(_CALL) else None
        if call is None:
            words.append(line)
        else:
            calls.append(call)
    return "\n".join(words), calls


def _call(line: str) -> dict[str, str] | None:
    try:
        call = json.loads(line)
        return {"name": str(call["function"]), "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
    except (ValueError, KeyError, RecursionError):
        return None


def read_reply(reply: Any) -> Generation:
    """The answer in a chat completion or a completion; one whose calls are no JSON has failed.

    Raises:
        Unusable: it is neither.
    """
    try:
        choice = reply.choices[0]
        message = getattr(choice, "message", None)
        text = choice.text if message is None else message.content or ""
        calls = [] if message is None else message.tool_calls or []
        lines = [text, *(written_call(call.function.name, json.loads(call.function.arguments)) for call in calls)]
    except (json.JSONDecodeError, RecursionError):
        return failed(BROKEN_JSON)
    except (AttributeError, IndexError, TypeError):
        raise Unusable("no chat completion", EMPTY_REPLY) from None
    if not isinstance(text, str):
        raise Unusable("no text", EMPTY_REPLY)
    made = getattr(getattr(reply, "usage", None), "completion_tokens", None)
    return Generation(
        text="\n".join(filter(None, lines)),
        tokens=made if isinstance(made, int) else 0,
        finished=choice.finish_reason != "length",
    )


def _worth_another_try(error: BaseException) -> bool:
    if isinstance(error, Busy):
        return error.pause is None or error.pause <= LONGEST_PAUSE_S
    return isinstance(error, Fault | Unusable)
