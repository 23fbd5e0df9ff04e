"""What training and evaluation read: one conversation whose last turn is the answer to learn."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.files import canonical_json, sha256_text

Task = Literal["intent", "function_call", "chat"]


class SaysOneOf(BaseModel):
    """The answer holds at least one of these texts, whatever the case of its letters."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["says"] = "says"
    any: list[str] = Field(min_length=1)


class SaysNoneOf(BaseModel):
    """The answer holds none of these texts, whatever the case of its letters."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["avoids"] = "avoids"
    any: list[str] = Field(min_length=1)


class EndsWithNumber(BaseModel):
    """The last number in the answer is this one."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["number"] = "number"
    value: float


class InOrder(BaseModel):
    """The answer's lines hold these texts, one each and in this order; there are no other lines."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["lines"] = "lines"
    lines: list[str] = Field(min_length=1)


Check = Annotated[SaysOneOf | SaysNoneOf | EndsWithNumber | InOrder, Field(discriminator="kind")]
"""Something that a program can verify of a right answer, whatever its words."""


class _Learnt(BaseModel):
    """What a release says of everything it offers to learn from.

    `group` is the pseudonym that a split never cuts through (a user's events share one); `event_ids` lead back to
    the log and are empty for imported example files. `role` is which of the recipe's `prompt.roles` answers; empty for
    an adapter with one role only.
    """

    model_config = ConfigDict(extra="forbid")

    task: Task
    source: str
    group: str
    event_ids: list[str] = Field(default_factory=list)
    role: str = ""


class Example(_Learnt):
    """A conversation that ends with the assistant's right answer.

    An intent's answer is the label as the last turn's content; a function call's is the last turn's `tool_calls`; a
    chat's is text, calls or both. Every right answer to a chat passes `checks`.
    """

    example_id: str
    messages: list[Message] = Field(min_length=2)
    checks: list[Check] = Field(default_factory=list)

    @model_validator(mode="after")
    def _ends_with_an_answer(self) -> "Example":
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's answer")
        return self

    @property
    def prompt(self) -> list[Message]:
        """Everything before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> Message:
        """The last turn."""
        return self.messages[-1]

    def in_role(self, role: str) -> "Example":
        """The same example, to be answered in `role`; its id follows, and its group where that is the id."""
        if role == self.role:
            return self
        group = "" if self.group == self.example_id else self.group
        return make_example(
            self.task,
            self.messages,
            source=self.source,
            group=group,
            event_ids=self.event_ids,
            role=role,
            checks=self.checks,
        )


def make_example(
    task: Task,
    messages: list[Message],
    *,
    source: str,
    group: str = "",
    event_ids: list[str] | None = None,
    role: str = "",
    checks: list[Check] | None = None,
) -> Example:
    """Build an example whose id is the digest of what it says and of its role, and whose group defaults to that id."""
    said = canonical_json([task, [message.model_dump(mode="json") for message in messages], *([role] if role else [])])
    example_id = sha256_text(said)[:20]
    return Example(
        example_id=example_id,
        task=task,
        source=source,
        group=group or example_id,
        event_ids=event_ids or [],
        role=role,
        messages=messages,
        checks=checks or [],
    )


class PreferencePair(_Learnt):
    """Two answers to one prompt, and which is better: what DPO, ORPO and reward models learn from.

    `reason`: the person corrected the answer; two people's thumbs differ on answers to the same prompt; or the judge
    ranked samples of the current adapter.
    """

    pair_id: str
    prompt: list[Message] = Field(min_length=1)
    chosen: Message
    rejected: Message
    reason: Literal["correction", "thumbs", "judge"]


class RatedAnswer(_Learnt):
    """A conversation whose last turn one person found good or bad: unpaired feedback, as KTO takes it."""

    rated_id: str
    messages: list[Message] = Field(min_length=2)
    desirable: bool


class IntentRow(BaseModel):
    """A line of the seeds' intent files."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(min_length=1)
    output: str = Field(min_length=1)


class FunctionRow(BaseModel):
    """A line of the seeds' function-calling files."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(min_length=1)
    function: str = Field(min_length=1)
    arguments: dict[str, Any]


class ChatRow(BaseModel):
    """A line of the seeds' multi-turn files, perhaps with what can be verified of the answer."""

    model_config = ConfigDict(extra="ignore")

    messages: list[Message] = Field(min_length=2)
    checks: list[Check] = Field(default_factory=list)


def example_from_row(row: IntentRow | FunctionRow | ChatRow, *, source: str) -> Example:
    """Turn one line of an example file into an `Example`."""
    if isinstance(row, ChatRow):
        return make_example("chat", row.messages, source=source, checks=row.checks)
    user = Message(role="user", content=row.input)
    if isinstance(row, IntentRow):
        return make_example("intent", [user, Message(role="assistant", content=row.output)], source=source)
    call = ToolCall(name=row.function, arguments=row.arguments)
    return make_example("function_call", [user, Message(role="assistant", tool_calls=[call])], source=source)
