from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message, Role, ToolCall
from pocketloop.contracts.names import Task
from pocketloop.labeling.extract import candidate_of
from pocketloop.privacy.records import ScrubbedEvent
from pocketloop.tasks.turns import up_to_answer

CALL = [{"name": "set_timer", "arguments": {"minutes": 5}}]
TURNS = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=st.sampled_from(["", "ok", "one two three four five six"]),
        tool_calls=st.sampled_from([[], [ToolCall(name="f")]]),
    ),
    max_size=8,
)


def turn(role: Role, content: str = "", calls: Any = ()) -> dict[str, Any]:
    return {"role": role, "content": content, "tool_calls": list(calls)}


def test_a_call_after_clarifying_turns_keeps_them_as_its_prompt_and_drops_the_text_beside_it(
    make_event: Callable[..., dict[str, Any]],
) -> None:
    said = [
        turn("user", "a timer"),
        turn("assistant", "How long?"),
        turn("user", "5 minutes"),
        turn("assistant", "Setting it.", CALL),
        turn("tool", "done"),
        turn("assistant", "Your timer is running."),
    ]
    candidate = candidate_of(ScrubbedEvent.model_validate(make_event(1, said)), "function_call")
    assert candidate is not None
    assert [message.content for message in candidate.prompt] == ["a timer", "How long?", "5 minutes"]
    assert (candidate.answer.content, candidate.answer.tool_calls[0].name) == ("", "set_timer")
    assert (candidate.group, candidate.source) == ("g-1", "events:functions")


def test_a_chat_learns_up_to_its_last_turn_of_substance(make_event: Callable[..., dict[str, Any]]) -> None:
    said = [
        turn("user", "hi"),
        turn("assistant", "Hello, what can I do for you?"),
        turn("user", "bye"),
        turn("assistant", "Have a great day."),
    ]
    plain = candidate_of(ScrubbedEvent.model_validate(make_event(1, said)), "chat")
    assert plain is not None and plain.answer.content == "Hello, what can I do for you?"
    corrected = candidate_of(ScrubbedEvent.model_validate(make_event(1, said, correction="See you!")), "chat")
    assert corrected is not None and corrected.answer.content == "Have a great day."


def test_a_correction_without_a_thumb_counts_as_thumbs_down(make_event: Callable[..., dict[str, Any]]) -> None:
    said = [turn("user", "play"), turn("assistant", "music")]
    event = ScrubbedEvent.model_validate(make_event(1, said, correction="weather"))
    candidate = candidate_of(event, "intent")
    assert candidate is not None and candidate.person == "down"


@pytest.mark.parametrize("task", ["intent", "function_call", "chat"])
@given(turns=TURNS)
def test_what_is_extracted_begins_the_conversation_and_ends_with_an_assistant_turn_after_a_user(
    task: Task, turns: list[Message]
) -> None:
    said = up_to_answer(task, turns)
    roles = [turn.role for turn in turns]
    if said is None:
        assert "user" not in roles or "assistant" not in roles[roles.index("user") :]
        return
    assert said[:-1] == turns[: len(said) - 1]
    assert said[-1].role == "assistant" and "user" in roles[: len(said) - 1]
    assert said[-1].tool_calls == turns[len(said) - 1].tool_calls
