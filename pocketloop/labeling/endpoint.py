"""An OpenAI-compatible endpoint that may stall, fail, lie or run up a bill: it is asked with all of that in mind.

Every request has a deadline of its own, is repeated with growing, random pauses (or after the pause that the endpoint
asks for), and is answered by a reply that fits its schema or not at all. When the endpoint fails again and again, or
the token budget is spent, nothing more is asked; what was answered before is still given.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.labels import Rubric
from pocketloop.contracts.recipe import JudgeEndpoint
from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.questions import MAX_REPLY_TOKENS, Question
from pocketloop.models import openai_api
from pocketloop.models.openai_api import LONGEST_PAUSE_S, Busy, Declined, Fault, Refused, Unusable

FAILURES_IN_A_ROW = 8
"""Of connection or server, or of questions without a usable reply, after which nothing more is asked in this run."""

_CHARACTERS_PER_TOKEN = 3  # a careful guess, for what the endpoint does not count itself
_HINTS = {401: "check `api_key_env`", 403: "check `api_key_env`", 404: "check `url` and `model`"}

Item = TypeVar("Item")


class Stopped(Exception):
    """Nothing more is asked in this run; its text tells why."""


class NoReply(Exception):
    """The endpoint was asked as often as it may be and did not answer."""


class NoUsableReply(NoReply):
    """It did answer, but nothing that was asked for."""


class Endpoint:
    """Asks one model, from one or many tasks of one event loop at a time.

    Attributes:
        tokens: spent by this object, as the endpoint counts them.
        stopped: why nothing more is asked; empty while all is well.

    Raises:
        ConfigError: `api_key_env` names a variable that is not set.
    """

    def __init__(self, config: JudgeEndpoint, rubric: Rubric, cache: AnswerCache) -> None:
        import pybreaker

        if config.api_key_env and not os.environ.get(config.api_key_env):
            raise ConfigError(f"label.llm.api_key_env: environment variable {config.api_key_env} is not set")
        self.config = config
        self.rubric = rubric
        self.tokens = 0
        self.stopped = ""
        self._reserved = 0
        self._unanswered = 0
        self._trouble = ""
        self._cache = cache
        self._client: Any = None
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=FAILURES_IN_A_ROW, reset_timeout=86400, exclude=[lambda error: not isinstance(error, Fault)]
        )

    def run(self, work: Callable[[Item], Awaitable[None]], items: Iterable[Item]) -> None:
        """Do `work` for every item, `parallel` at a time, with a client that is closed afterwards.

        Raises:
            ConfigError: the endpoint refuses to be asked at all (key, address, model).
        """
        asyncio.run(self._run(work, iter(items)))

    async def _run(self, work: Callable[[Item], Awaitable[None]], items: Any) -> None:
        async def worker() -> None:
            for item in items:
                await work(item)

        key = os.environ[self.config.api_key_env] if self.config.api_key_env else "none"
        self._client = openai_api.open_client(self.config.url, key, self.config.timeout_s)
        async with self._client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.config.parallel):
                        group.create_task(worker())
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None

    def known(self, question: Question) -> dict[str, Any] | None:
        """The reply that was given to this question before, in this run or another."""
        return self._cache.get(question.key(self.config.model, self.rubric))

    async def ask(self, question: Question) -> dict[str, Any]:
        """The reply to a question that has none yet.

        Raises:
            NoReply: the endpoint gave none in `attempts` tries; `NoUsableReply`: none that could be used.
            Stopped: it was not asked, because of the budget or because the endpoint is out of order.
        """
        import tenacity

        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.config.attempts),
            wait=openai_api.pause,
            retry=tenacity.retry_if_exception_type((Fault, Busy, Unusable)),
            reraise=True,
        )
        try:
            reply: dict[str, Any] = await attempts(self._once, question)
        except (Fault, Busy, Unusable) as error:
            self._unanswered += 1
            self._trouble = f"{'no usable reply' if isinstance(error, Unusable) else 'no answer'} ({error})"
            if self._unanswered >= FAILURES_IN_A_ROW and not self.stopped:
                self.stopped = f"{FAILURES_IN_A_ROW} questions in a row got {self._trouble}"
            raise (NoUsableReply if isinstance(error, Unusable) else NoReply)(str(error)) from None
        self._unanswered = 0
        self._cache.put(question.key(self.config.model, self.rubric), reply)
        return reply

    def use(self, **answers: int) -> JudgeUse:
        """What was asked so far; `answers` are the counts that only the asker knows."""
        return JudgeUse(
            model=self.config.model,
            rubric=self.rubric.label,
            tokens=self.tokens,
            why=self.stopped or self._trouble,
            **answers,
        )

    async def _once(self, question: Question) -> dict[str, Any]:
        """One request within the budget.

        Raises:
            Stopped, Fault, Busy, Unusable: there is no reply.
        """
        import pybreaker

        guess = sum(len(message["content"]) for message in question.messages) // _CHARACTERS_PER_TOKEN
        most = guess + MAX_REPLY_TOKENS
        while self._reserved and self._left < most and not self.stopped:
            await asyncio.sleep(0.02)  # what is under way may turn out to take less than was set aside for it
        if not self.stopped and self._left < most:
            self.stopped = f"the budget of {self.config.budget_tokens} tokens is spent"
        if self.stopped:
            raise Stopped(self.stopped)
        self._reserved += most
        spent = guess  # an endpoint that never answers may still have read
        try:
            with self._breaker.calling():
                text, spent = await self._request(question, guess)
        except pybreaker.CircuitBreakerError as error:
            cause = error.__context__
            self.stopped = f"the endpoint failed {FAILURES_IN_A_ROW} times in a row ({cause or 'out of order'})"
            raise Stopped(self.stopped) from None
        finally:
            self._reserved -= most
            self.tokens += spent
        reply = question.read(text)
        if reply is None:
            raise Unusable("a reply that is not what was asked for")
        return reply

    @property
    def _left(self) -> int:
        return self.config.budget_tokens - self.tokens - self._reserved

    async def _request(self, question: Question, guess: int) -> tuple[str, int]:
        """The reply's text, and the tokens that it took."""
        asked = self._client.chat.completions.create(
            model=self.config.model,
            messages=question.messages,
            temperature=question.temperature,
            seed=question.seed,
            max_tokens=MAX_REPLY_TOKENS,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": question.schema},
            },
        )
        try:
            completion = await openai_api.within(asked, self.config.timeout_s)
        except Refused as error:
            url, hint = self.config.url, _HINTS[error.status]
            raise ConfigError(f"label.llm: {url} answered {error.status}; {hint}") from None
        except Declined as error:
            raise NoUsableReply(str(error)) from None
        except Busy as error:
            if error.pause is None or error.pause <= LONGEST_PAUSE_S:
                raise
            self.stopped = f"the endpoint wants no more requests for {error.pause:.0f} s"
            raise Stopped(self.stopped) from None
        try:
            text = completion.choices[0].message.content or ""
            usage = getattr(completion.usage, "total_tokens", None)
        except (AttributeError, IndexError, TypeError):
            raise Unusable("no chat completion") from None
        if not isinstance(usage, int) or usage <= 0:
            usage = guess + len(text) // _CHARACTERS_PER_TOKEN
        return str(text), usage
