"""An OpenAI-compatible endpoint that may stall, fail, lie or run up a bill: it is asked with all of that in mind.

Every request has a deadline of its own, is repeated with growing, random pauses (or after the pause that the endpoint
asks for), and is answered by a reply that fits its schema or not at all. When the endpoint fails again and again, or
the token budget is spent, nothing more is asked; what was answered before is still given.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.labels import Rubric
from pocketloop.contracts.recipe import JudgeEndpoint
from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.questions import MAX_REPLY_TOKENS, Question

FAILURES_IN_A_ROW = 8
"""Of connection or server, or of questions without a usable reply, after which nothing more is asked in this run."""

LONGEST_PAUSE_S = 60.0
"""An endpoint that wants to be left alone for longer is asked again by the next run."""

_CHARACTERS_PER_TOKEN = 3  # a careful guess, for what the endpoint does not count itself
_REFUSED = {401: "check `api_key_env`", 403: "check `api_key_env`", 404: "check `url` and `model`"}

Item = TypeVar("Item")


class Stopped(Exception):
    """Nothing more is asked in this run; its text tells why."""


class NoReply(Exception):
    """The endpoint was asked as often as it may be and did not answer."""


class NoUsableReply(NoReply):
    """It did answer, but nothing that was asked for."""


class _Fault(Exception):
    """The endpoint did not answer: worth another try, and counted by the circuit breaker."""


class _Busy(Exception):
    """The endpoint asks for a pause."""

    def __init__(self, why: str, pause: float | None) -> None:
        super().__init__(why)
        self.pause = pause


class _Unusable(Exception):
    """The endpoint answered something else than was asked for."""


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
            fail_max=FAILURES_IN_A_ROW, reset_timeout=86400, exclude=[lambda error: not isinstance(error, _Fault)]
        )

    def run(self, work: Callable[[Item], Awaitable[None]], items: Iterable[Item]) -> None:
        """Do `work` for every item, `parallel` at a time, with a client that is closed afterwards.

        Raises:
            ConfigError: the endpoint refuses to be asked at all (key, address, model).
        """
        asyncio.run(self._run(work, iter(items)))

    async def _run(self, work: Callable[[Item], Awaitable[None]], items: Any) -> None:
        import openai

        async def worker() -> None:
            for item in items:
                await work(item)

        key = os.environ[self.config.api_key_env] if self.config.api_key_env else "none"
        self._client = openai.AsyncOpenAI(
            base_url=self.config.url, api_key=key, max_retries=0, timeout=self.config.timeout_s
        )
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
            wait=_pause,
            retry=tenacity.retry_if_exception_type((_Fault, _Busy, _Unusable)),
            reraise=True,
        )
        try:
            reply: dict[str, Any] = await attempts(self._once, question)
        except (_Fault, _Busy, _Unusable) as error:
            self._unanswered += 1
            self._trouble = f"{'no usable reply' if isinstance(error, _Unusable) else 'no answer'} ({error})"
            if self._unanswered >= FAILURES_IN_A_ROW and not self.stopped:
                self.stopped = f"{FAILURES_IN_A_ROW} questions in a row got {self._trouble}"
            raise (NoUsableReply if isinstance(error, _Unusable) else NoReply)(str(error)) from None
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
            Stopped, _Fault, _Busy, _Unusable: there is no reply.
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
            raise _Unusable("a reply that is not what was asked for")
        return reply

    @property
    def _left(self) -> int:
        return self.config.budget_tokens - self.tokens - self._reserved

    async def _request(self, question: Question, guess: int) -> tuple[str, int]:
        """The reply's text, and the tokens that it took."""
        import openai

        asked: Coroutine[Any, Any, Any] = self._client.chat.completions.create(
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
            # The client's own timeout begins anew with every byte that drips in.
            completion = await asyncio.wait_for(asked, self.config.timeout_s)
        except openai.APIStatusError as error:
            raise self._judged(error) from None
        except UnicodeError:
            raise NoUsableReply("not Unicode text") from None
        except (openai.APIError, TimeoutError, OSError, ValueError) as error:
            raise _Fault(type(error).__name__) from None
        try:
            text = completion.choices[0].message.content or ""
            usage = getattr(completion.usage, "total_tokens", None)
        except (AttributeError, IndexError, TypeError):
            raise _Unusable("no chat completion") from None
        if not isinstance(usage, int) or usage <= 0:
            usage = guess + len(text) // _CHARACTERS_PER_TOKEN
        return str(text), usage

    def _judged(self, error: Any) -> Exception:
        """What an HTTP error means: wait, try again, give this one up, or give up altogether."""
        status = error.status_code
        if status in _REFUSED:
            return ConfigError(f"label.llm: {self.config.url} answered {status}; {_REFUSED[status]}")
        if status == 429 or (status == 503 and error.response.headers.get("retry-after")):
            pause = _retry_after(error.response.headers.get("retry-after"))
            if pause is not None and pause > LONGEST_PAUSE_S:
                self.stopped = f"the endpoint wants no more requests for {pause:.0f} s"
                return Stopped(self.stopped)
            return _Busy(f"HTTP {status}", pause)
        if 400 <= status < 500 and status not in (408, 409, 425):
            return NoUsableReply(f"HTTP {status}")  # this question is not to its liking: too long, for one
        return _Fault(f"HTTP {status}")


def _pause(state: Any) -> float:
    """Seconds before the next try: what the endpoint asks for, or a random time that grows."""
    import tenacity

    error = state.outcome.exception()
    asked = error.pause if isinstance(error, _Busy) else None
    random = tenacity.wait_random_exponential(multiplier=0.5, max=20)(state)
    return random if asked is None else asked + min(random, 1.0)


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number, or a date (RFC 9110, 10.2.3)."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return seconds if 0 <= seconds < float("inf") else None
