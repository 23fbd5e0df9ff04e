"""Which turn of a conversation is the answer to learn."""

from pocketloop.contracts.events import Message
from pocketloop.contracts.names import Task

MIN_WORDS = 5
"""A closing turn of fewer words ("Have a great day.") teaches nothing that the dialogue before it asked for."""


def up_to_answer(task: Task, messages: list[Message], very_last: bool = False) -> list[Message] | None:
    """The conversation up to its answer, the answer last; `None` when no assistant turn follows a user's.

    The answer is the last assistant turn for an intent; the last one that calls, if any does, for a function call,
    without the text beside the call; the last one that calls or says at least `MIN_WORDS` words, if any does, in a
    chat (with `very_last`, a chat's is its last assistant turn whatever it says).
    """
    first_user = next((at for at, message in enumerate(messages) if message.role == "user"), len(messages))
    turns = [at for at in range(first_user, len(messages)) if messages[at].role == "assistant"]
    if not turns:
        return None
    if task == "function_call":
        turns = [at for at in turns if messages[at].tool_calls] or turns
    elif task == "chat" and not very_last:
        turns = [at for at in turns if _says_something(messages[at])] or turns
    answer = messages[turns[-1]]
    if task == "function_call" and answer.tool_calls:
        answer = answer.model_copy(update={"content": ""})
    return [*messages[: turns[-1]], answer]


def every_answer(task: Task, messages: list[Message]) -> list[list[Message]]:
    """The conversation up to each turn that `task` answers, as `up_to_answer` gives it for one of them.

    For function calls these are the turns that call; for a chat, all that call or say anything, since not to call is
    right there, too.
    """
    ends = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if task == "function_call":
        ends = [at for at in ends if messages[at].tool_calls]
    found = [up_to_answer(task, messages[: at + 1], very_last=True) for at in ends]
    return [said for said in found if said is not None and (said[-1].tool_calls or said[-1].content.strip())]


def _says_something(message: Message) -> bool:
    return bool(message.tool_calls) or len(message.content.split()) >= MIN_WORDS
