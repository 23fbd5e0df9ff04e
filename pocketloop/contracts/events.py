"""`interaction/1`: one interaction of one phone with one adapter, as the phone posts it."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Identifier = Annotated[str, Field(min_length=1, max_length=128)]
Role = Literal["system", "user", "assistant", "tool"]


class ToolCall(BaseModel):
    """One function call: a name and its JSON arguments."""

    model_config = ConfigDict(extra="forbid")

    name: Identifier
    arguments: dict[str, Any] = Field(default_factory=dict)


class Message(BaseModel):
    """One turn of a conversation; an assistant turn may carry calls beside or instead of text."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    content: str = ""
    tool_calls: list[ToolCall] = Field(default_factory=list)


Conversation = list[dict[str, Any]]
"""Messages as chat templates take them: {role, content}."""


def written_call(name: str, arguments: dict[str, Any]) -> str:
    """A call as the models write it: one JSON object on a line."""
    return json.dumps({"function": name, "arguments": arguments}, ensure_ascii=False)


def with_system(text: str, conversation: Conversation) -> Conversation:
    """The conversation with `text` before everything else: one system turn, whatever stood there below it."""
    if not text:
        return list(conversation)
    first, rest = conversation[:1], conversation[1:]
    if not first or first[0]["role"] != "system":
        return [{"role": "system", "content": text}, *conversation]
    return [{"role": "system", "content": f"{text}\n{first[0]['content']}"}, *rest]


class AdapterTag(BaseModel):
    """Which adapter answered: its skill, version, and the arm of the rollout the phone was in."""

    skill: Identifier
    version: str = ""
    arm: str = "stable"


class Consent(BaseModel):
    """What the person allowed, and under which policy text: `policy` is its name, which stands in reports."""

    training: bool
    policy: Annotated[str, Field(pattern=r"^[\w.:+-]{1,64}$")]


class Correction(BaseModel):
    """What the person said the answer should have been: a label, a call, or a text."""

    model_config = ConfigDict(extra="forbid")

    content: str = ""
    tool_calls: list[ToolCall] = Field(default_factory=list)


class Feedback(BaseModel):
    """Thumb and correction; a bare string is a correction's text."""

    rating: Literal["up", "down"] | None = None
    correction: Correction | str | None = None

    def corrected(self) -> Correction | None:
        """The correction in its long form."""
        return Correction(content=self.correction) if isinstance(self.correction, str) else self.correction


class InteractionEvent(BaseModel):
    """One line of the log. Unknown keys are kept in `model_extra` and never trained on."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    schema_: Literal["interaction/1"] = Field(alias="schema", default="interaction/1")
    event_id: Identifier
    device_id: Identifier
    ts: AwareDatetime
    app_version: str = ""
    locale: str = ""
    adapter: AdapterTag
    consent: Consent
    messages: list[Message] = Field(min_length=1, max_length=200)
    feedback: Feedback = Field(default_factory=Feedback)
    metrics: dict[str, Any] = Field(default_factory=dict)

    def age_days(self, now: datetime) -> float:
        """Days between this event and `now` (negative for a timestamp in the future)."""
        return (now - self.ts).total_seconds() / 86400


class Quarantined(BaseModel):
    """Something that was left out, with the reason; `excerpt` is never raw user text."""

    model_config = ConfigDict(extra="forbid")

    stage: Literal["import", "collect", "scrub", "validate", "label", "select", "split"]
    reason: str
    detail: str = ""
    where: str = ""
    event_id: str | None = None
