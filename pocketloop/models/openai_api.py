"""Requests to an OpenAI-compatible address: each has a deadline, and each way to fail says what follows from it."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from pocketloop.models.generators import (
    BROKEN_JSON,
    BUSY,
    EMPTY_REPLY,
    NO_CONNECTION,
    REFUSED,
    SERVER_ERROR,
    TIMED_OUT,
    TOO_LONG,
)

LONGEST_PAUSE_S = 60.0
"""An endpoint that wants to be left alone for longer is not waited for."""

_WRONG_CONFIGURATION = (401, 403, 404)
_ONLY_NOW = (408, 409, 425)


class Trouble(Exception):
    """There is no reply. The text tells how, `reason` is one of the reasons of `generators`."""

    reason = EMPTY_REPLY

    def __init__(self, how: str, reason: str = "") -> None:
        super().__init__(how)
        self.reason = reason or self.reason


class Fault(Trouble):
    """The endpoint did not answer: worth another try."""


class Busy(Trouble):
    """The endpoint asks for a pause, of `pause` seconds if it says for how long."""

    reason = BUSY

    def __init__(self, how: str, pause: float | None) -> None:
        super().__init__(how)
        self.pause = pause


class Unusable(Trouble):
    """The endpoint answered something else than was asked for: worth another try."""


class Declined(Trouble):
    """This request is not to its liking (too long, for one), and will not be."""


class Refused(Trouble):
    """No request with this address, key or model will be answered; `status` is the HTTP one."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}", REFUSED)
        self.status = status


def open_client(base_url: str, api_key: str, timeout_s: float) -> Any:
    """An `openai.AsyncOpenAI` that repeats nothing by itself, for one event loop; close it."""
    import openai

    return openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=timeout_s)


async def within(asked: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """What a request to the client gives, within a deadline.

    Raises:
        Fault, Busy, Declined, Refused: it gives nothing.
    """
    import openai

    try:
        # The client's own timeout begins anew with every byte that drips in.
        return await asyncio.wait_for(asked, seconds)
    except openai.APIStatusError as error:
        raise _judged(error) from None
    except UnicodeError:
        raise Declined("not Unicode text", REFUSED) from None
    except (TimeoutError, openai.APITimeoutError) as error:
        raise Fault(type(error).__name__, TIMED_OUT) from None
    except (openai.APIResponseValidationError, json.JSONDecodeError) as error:
        raise Fault(type(error).__name__, BROKEN_JSON) from None
    except (openai.APIError, OSError, ValueError) as error:
        raise Fault(type(error).__name__, NO_CONNECTION) from None


def pause(state: Any) -> float:
    """Seconds before tenacity's next try: what the endpoint asks for, or a random time that grows."""
    import tenacity

    error = state.outcome.exception()
    asked = error.pause if isinstance(error, Busy) else None
    random = tenacity.wait_random_exponential(multiplier=0.5, max=20)(state)
    return random if asked is None else asked + min(random, 1.0)


def _judged(error: Any) -> Trouble:
    """What an HTTP error means: wait, try again, give this one up, or give up altogether."""
    status, headers = error.status_code, error.response.headers
    if status in _WRONG_CONFIGURATION:
        return Refused(status)
    if status == 429 or (status == 503 and headers.get("retry-after")):
        return Busy(f"HTTP {status}", retry_after(headers.get("retry-after")))
    if 400 <= status < 500 and status not in _ONLY_NOW:
        return Declined(f"HTTP {status}", TOO_LONG if _speaks_of_length(error) else REFUSED)
    return Fault(f"HTTP {status}", SERVER_ERROR)


def _speaks_of_length(error: Any) -> bool:
    said = f"{error.code or ''} {error.message or ''}".lower()
    return any(words in said for words in ("context length", "context_length", "context size", "maximum context"))


def retry_after(value: str | None) -> float | None:
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
