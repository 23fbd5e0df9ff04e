"""What training and evaluation read: one conversation whose last turn is the answer to learn."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.names import Task


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


class HasLength(BaseModel):
    """The answer has at least `min` and at most `max` of something.

    A sentence ends with a mark (`.!?`), a paragraph with an empty line; a bullet is a line that begins with `-`, `*`,
    `•` or a number; a line and a paragraph hold something.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["length"] = "length"
    of: Literal["words", "sentences", "lines", "paragraphs", "bullets", "characters"]
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bounds_something(self) -> "HasLength":
        if self.min is None and self.max is None:
            raise ValueError("a length has `min`, `max` or both")
        if self.min is not None and self.max is not None and self.max < self.min:
            raise ValueError("`max` lies below `min`")
        return self


class Mentions(BaseModel):
    """The answer holds this text, as whole words whatever their case, at least `min` and at most `max` times."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["mentions"] = "mentions"
    text: str = Field(min_length=1)
    min: int = Field(default=1, ge=0)
    max: int | None = Field(default=None, ge=0)


class Surrounded(BaseModel):
    """The answer starts or ends with this text, whatever the case of its letters and the space around it."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["starts", "ends"]
    text: str = Field(min_length=1)


class Written(BaseModel):
    """How the answer is written: in one case, without commas, in quotation marks, or as one JSON value.

    `schema` is what that JSON value must fit.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    kind: Literal["written"] = "written"
    form: Literal["lowercase", "capitals", "no commas", "quoted", "json"]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _has_a_schema_for_json_only(self) -> "Written":
        if self.schema_ is not None and self.form != "json":
            raise ValueError("only JSON has a `schema`")
        return self


class AcceptedCall(BaseModel):
    """A call of a right answer, with everything that it may be.

    `arguments` has the values that are right for each argument; those of them in `optional` may also be left out. Any
    other argument is wrong, unless its value is the default that the function's schema declares.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=128)
    arguments: dict[str, list[Any]] = Field(default_factory=dict)
    optional: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _can_be_met(self) -> "AcceptedCall":
        if empty := [name for name, values in self.arguments.items() if not values]:
            raise ValueError(f"no value is right for argument {empty[0]!r}")
        if strange := [name for name in self.optional if name not in self.arguments]:
            raise ValueError(f"optional argument {strange[0]!r} has no values in `arguments`")
        return self


Slices = dict[
    Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")], Annotated[str, Field(pattern=r"^[\w.:+@/ -]{1,64}$")]
]
"""What the data says of an example, by dimension: `{"locale": "de-DE", "user": "new"}`. It stands in reports."""

Check = Annotated[
    SaysOneOf | SaysNoneOf | EndsWithNumber | InOrder | HasLength | Mentions | Surrounded | Written,
    Field(discriminator="kind"),
]
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
    accepts: list[AcceptedCall] = Field(default_factory=list)
    """What else is right beside the answer's calls as they stand; one entry for each of them, or none at all."""
    slices: Slices = Field(default_factory=dict)
    dialogue: str = ""
    """The turns of one conversation, each an example, share it."""

    @model_validator(mode="after")
    def _ends_with_an_answer(self) -> "Example":
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's answer")
        called = sorted(call.name for call in self.answer.tool_calls)
        if self.accepts and sorted(call.name for call in self.accepts) != called:
            raise ValueError("`accepts` must name the calls of the answer, each once")
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
            accepts=self.accepts,
            slices=self.slices,
            dialogue=self.dialogue,
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
    accepts: list[AcceptedCall] | None = None,
    slices: Slices | None = None,
    dialogue: str = "",
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
        accepts=accepts or [],
        slices=slices or {},
        dialogue=dialogue,
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
    slices: Slices = Field(default_factory=dict)


class FunctionRow(BaseModel):
    """A line of the seeds' function-calling files.

    `acceptable` has, by argument, the values that are right beside the one in `arguments`; an argument may be left out
    where it is in `optional`.
    """

    model_config = ConfigDict(extra="forbid")

    input: str = Field(min_length=1)
    function: str = Field(min_length=1)
    arguments: dict[str, Any]
    acceptable: dict[str, list[Any]] = Field(default_factory=dict)
    optional: list[str] = Field(default_factory=list)
    slices: Slices = Field(default_factory=dict)

    def accepts(self) -> list[AcceptedCall]:
        """The call with everything that is right; nothing where the arguments are right as they stand alone."""
        if not self.acceptable and not self.optional:
            return []
        values = {name: [value] for name, value in self.arguments.items()}
        for name, others in self.acceptable.items():
            values[name] = [*values.get(name, []), *others]
        optional = sorted({*self.optional, *(name for name in values if name not in self.arguments)})
        return [AcceptedCall(name=self.function, arguments=values, optional=optional)]


class ChatRow(BaseModel):
    """A line of the seeds' multi-turn files, perhaps with what can be verified of the answer."""

    model_config = ConfigDict(extra="ignore")

    messages: list[Message] = Field(min_length=2)
    checks: list[Check] = Field(default_factory=list)
    accepts: list[AcceptedCall] = Field(default_factory=list)
    slices: Slices = Field(default_factory=dict)


def example_from_row(row: IntentRow | FunctionRow | ChatRow, *, source: str) -> Example:
    """Turn one line of an example file into an `Example`."""
    if isinstance(row, ChatRow):
        return make_example(
            "chat", row.messages, source=source, checks=row.checks, accepts=row.accepts, slices=row.slices
        )
    user = Message(role="user", content=row.input)
    if isinstance(row, IntentRow):
        answer = Message(role="assistant", content=row.output)
        return make_example("intent", [user, answer], source=source, slices=row.slices)
    answer = Message(role="assistant", tool_calls=[ToolCall(name=row.function, arguments=row.arguments)])
    return make_example("function_call", [user, answer], source=source, accepts=row.accepts(), slices=row.slices)
