"""The cloud behind the phone: any OpenAI-compatible endpoint, streamed, and never waited for too long."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from threading import Event, Timer
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.events import Conversation
from pocketloop.device.errors import DeviceError

_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


class CloudFault(DeviceError):
    """The cloud gave no whole answer; the device has to answer by itself."""


class CloudConfig(BaseModel):
    """An OpenAI-compatible endpoint, as part of `configs/router.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """As the endpoint's own documentation gives it, usually ending in `/v1`."""
    model: str
    api_key_file: Path | None = None
    """File that holds nothing but the key; without one, no key is sent that means anything."""
    connect_s: float = Field(default=3, gt=0)
    timeout_s: float = Field(default=10, gt=0)
    """Longest silence: before the first piece of the answer, and between two."""
    total_s: float = Field(default=60, gt=0)
    """Longest answer."""
    max_tokens: int = Field(default=512, ge=1)

    @field_validator("base_url")
    @classmethod
    def _keeps_what_users_say_private(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _THIS_MACHINE):
            return url
        raise ValueError("what users say goes over https only (http: only to this machine)")


class Cloud:
    """A client for one endpoint; its connection is kept between answers.

    Raises:
        ConfigError: the key's file cannot be read.
    """

    def __init__(self, config: CloudConfig) -> None:
        self.config = config
        self._key = _read_key(config.api_key_file)
        self._name = f"the cloud ({urlsplit(config.base_url).hostname})"

    def answer(self, conversation: Conversation, on_text: Callable[[str], None]) -> str:
        """Stream an answer: `on_text` takes each piece; returns the whole.

        Raises:
            CloudFault: no connection, a timeout, an error status, or an answer that is empty or was cut short, though
                `on_text` may have been given pieces of it.
        """
        pieces: list[str] = []
        for piece in self._stream(conversation):
            pieces.append(piece)
            on_text(piece)
        text = "".join(pieces)
        if not text.strip():
            raise CloudFault(f"{self._name} gave an empty answer")
        return text

    def _stream(self, conversation: Conversation) -> Iterator[str]:
        """The pieces of an answer that turns out to be whole, or a CloudFault after some of them."""
        import openai

        finished = False
        watchdog: Timer | None = None
        late = Event()
        try:
            stream: Any = self._client.chat.completions.create(
                model=self.config.model, messages=conversation, max_tokens=self.config.max_tokens, stream=True
            )
            # An endpoint may keep the connection alive for ever without a word: each silence is short then.
            watchdog = Timer(self.config.total_s, _cut, (late, stream))
            watchdog.daemon = True
            watchdog.start()
            with stream:
                for chunk in stream:
                    for choice in chunk.choices[:1]:
                        if choice.delta.content:
                            yield choice.delta.content
                        finished = finished or choice.finish_reason is not None
        except openai.APIStatusError as error:
            raise CloudFault(f"{self._name} answered {error.status_code}") from None
        except Exception as error:  # whatever a client library raises on whatever was answered: there is no answer
            why = f"took longer than {self.config.total_s:g} s" if late.is_set() else type(error).__name__
            raise CloudFault(f"{self._name} gave no answer ({why})") from None
        finally:
            if watchdog is not None:
                watchdog.cancel()
        if not finished:
            raise CloudFault(f"{self._name} stopped in the middle of its answer")

    @cached_property
    def _client(self) -> Any:
        import openai

        return openai.OpenAI(
            base_url=self.config.base_url,
            api_key=self._key,
            timeout=openai.Timeout(self.config.timeout_s, connect=self.config.connect_s),
            max_retries=0,  # the user is waiting, and the device can answer
        )


def _cut(late: Event, stream: Any) -> None:
    late.set()
    stream.close()


def _read_key(path: Path | None) -> str:
    if path is None:
        return "none"
    try:
        key = path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cloud.api_key_file {path} cannot be read: {error}") from None
    if not key:
        raise ConfigError(f"cloud.api_key_file {path} is empty")
    return key
