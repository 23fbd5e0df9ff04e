"""Conversations and models whose memory is known."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import Example, make_example
from pocketloop.models.generators import Generation
from pocketloop.privacy.spans import Span

NUMBER = re.compile(r"\d{3}-\d{3}-\d{4}")
NAME = re.compile(r"[A-Z][a-z]+ [A-Z][a-z]+")


def find(text: str) -> list[Span]:
    """Numbers and full names."""
    found = [Span(m.start(), m.end(), "PHONE_NUMBER") for m in NUMBER.finditer(text)]
    return [*found, *(Span(m.start(), m.end(), "PERSON") for m in NAME.finditer(text))]


def user(text: str) -> Message:
    return Message(role="user", content=text)


def chat(said: str, answer: str, group: str = "") -> Example:
    return make_example("chat", [user(said), Message(role="assistant", content=answer)], source="t", group=group)


def call(said: str, name: str, group: str = "", /, **arguments: Any) -> Example:
    answer = Message(role="assistant", tool_calls=[ToolCall(name=name, arguments=arguments)])
    return make_example("function_call", [user(said), answer], source="t", group=group)


class Letters:
    """A tokenizer of single characters, as far as the checks need one."""

    chat_template = "{{ messages }}"

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(text, list):
            return {"input_ids": [[ord(letter) for letter in one] for one in text]}
        return {"input_ids": [ord(letter) for letter in text]}

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **named: Any) -> str:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in messages) + "\nassistant: "


class Known:
    """A model that says what `say` makes of the last turn; what it has learnt (`sure`) it finds certain."""

    def __init__(self, say: Callable[[str], str] = lambda text: "ok", sure: Sequence[str] = ()) -> None:
        self.say = say
        self.sure = sure
        self.tokenizer: Any = Letters()
        self.asked: list[str] = []

    def generate(
        self, conversations: Sequence[Any], max_new_tokens: int, tools: list[dict[str, Any]] | None = None
    ) -> list[Generation]:
        self.asked += [turns[-1]["content"] for turns in conversations]
        return [Generation(self.say(turns[-1]["content"]), 1, True) for turns in conversations]

    def log_probs(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[float]:
        """About two nats a character, give or take what the text decides; a hundredth where it is known by heart."""
        return [-len(answer) * self._nats(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def _nats(self, prompt: list[int], answer: list[int]) -> float:
        text = "".join(map(chr, prompt + answer))
        if any(known in text for known in self.sure):
            return 0.01
        return 1.5 + hashlib.sha256(text.encode()).digest()[0] / 256
