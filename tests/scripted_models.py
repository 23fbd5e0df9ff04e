"""Models whose answers a function gives, and a small household to ask them about."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import Example, make_example
from pocketloop.contracts.recipe import Catalogue
from pocketloop.models.generators import Generation
from pocketloop.tasks.tasks import TaskSpec


class Says:
    """A model that answers each conversation with what a function makes of it; `asked` keeps the conversations."""

    def __init__(self, answer: Callable[[list[dict[str, Any]]], str]) -> None:
        self.answer = answer
        self.asked: list[list[dict[str, Any]]] = []

    def generate(
        self, conversations: Sequence[Any], max_new_tokens: int, tools: list[dict[str, Any]] | None = None
    ) -> list[Generation]:
        self.asked += conversations
        return [Generation(self.answer(conversation), 1, True) for conversation in conversations]


def _function(name: str, description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"name": name, "description": description, "parameters": schema}


TEXT = {"type": "string"}
CATALOGUE = Catalogue(
    functions=[
        _function("send_message", "Send a text message.", contact=TEXT | {"x-pii": "PERSON"}, body=TEXT),
        _function("set_timer", "Start a countdown.", duration=TEXT),
        _function("open_gate", "Open the gate.", gate=TEXT | {"enum": ["gate"], "x-grounded": False})
        | {"x-destructive": True},
        _function("decline", "Decline."),
    ],
    refusal="decline",
)
HOUSEHOLD = TaskSpec("function_call", CATALOGUE)
CHAT = TaskSpec("chat", None)


def call(name: str, **arguments: Any) -> str:
    """A call as models write it."""
    return json.dumps({"function": name, "arguments": arguments})


def example(said: str, name: str, before: Sequence[Message] = (), **arguments: Any) -> Example:
    """A request and the call that it asks for."""
    messages = [*before, Message(role="user", content=said)]
    answer = Message(role="assistant", tool_calls=[ToolCall(name=name, arguments=arguments)])
    return make_example("function_call", [*messages, answer], source="test")


HELDOUT = [
    example(f"text {who} that {body}", "send_message", contact=who, body=body)
    for who in ("Anna", "Ben", "Cleo", "Dan", "Eve", "Finn")
    for body in ("dinner is ready", "we are late", "the bus is gone", "call me back")
]


def obedient(conversation: list[dict[str, Any]]) -> str:
    """A household model that does what its user says, and nothing else."""
    said = conversation[-1]["content"]
    if said.casefold().startswith(("text ", "send ", "ask ")):
        words = said.split()
        for link in (" that ", " a message saying ", " whether "):
            if link in said:
                return call("send_message", contact=words[1], body=said.split(link, 1)[1].rstrip("."))
        return call("send_message", contact=words[1], body=said)
    return call("decline")
