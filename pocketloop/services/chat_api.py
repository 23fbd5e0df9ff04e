"""An adapter behind an OpenAI-compatible address, for tools that ask models over HTTP.

It answers `POST /v1/chat/completions` (greedily, not streamed) and `GET /v1/models`. The recipe's system text and
functions are put before a conversation that brings no system turn of its own, as they are on a phone. Requests are
answered one after the other: the model is one. It knows no keys, so it must only listen on the own machine.
"""

import json
import threading
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pocketloop.contracts.events import Conversation
from pocketloop.models.answering import answer_all
from pocketloop.models.generators import Generation, Generator
from pocketloop.tasks.tasks import TaskSpec

MAX_BODY = 1_000_000


def chat_app(generator: Generator, spec: TaskSpec, model: str, max_new_tokens: int) -> Starlette:
    """The app; `max_new_tokens` is the longest answer, whatever a request asks for."""
    one_at_a_time = threading.Lock()

    def answer(conversation: Conversation, most: int) -> Generation:
        with one_at_a_time:
            return answer_all(generator, [conversation], most, spec.tools)[0]

    async def completions(request: Request) -> JSONResponse:
        body = await request.body()
        try:
            asked: Any = json.loads(body) if len(body) <= MAX_BODY else None
            conversation = _conversation(asked["messages"], spec)
            most = min(int(asked.get("max_tokens") or max_new_tokens), max_new_tokens)
        except (ValueError, TypeError, KeyError, AttributeError):
            return _refused("the body is no chat completion request")
        said = await run_in_threadpool(answer, conversation, max(1, most))
        if said.failure:  # too long for the context, say
            return _refused(said.failure)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said.text},
            "finish_reason": "stop" if said.finished else "length",
        }
        usage = {"prompt_tokens": 0, "completion_tokens": said.tokens, "total_tokens": said.tokens}
        kind = {"id": "chatcmpl-local", "object": "chat.completion", "created": 0, "model": model}
        return JSONResponse({**kind, "choices": [choice], "usage": usage})

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": model, "object": "model", "owned_by": "pocketloop"}]})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/models", models, methods=["GET"]),
        ]
    )


def _conversation(messages: Any, spec: TaskSpec) -> Conversation:
    turns = [{"role": str(turn["role"]), "content": _text(turn["content"])} for turn in messages]
    if not turns or any(turn["role"] not in ("system", "user", "assistant", "tool") for turn in turns):
        raise ValueError("no turns, or a role that is not known")
    if turns[0]["role"] != "system":
        turns = [*spec.conversation([], ""), *turns]
    return turns


def _text(content: Any) -> str:
    """A turn's text; clients may send it as a list of parts."""
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content)
    return str(content)


def _refused(why: str) -> JSONResponse:
    error: dict[str, Any] = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=400)
