"""What the model sees while it learns: the very tokens of inference, then the answer and the token that ends it."""

from dataclasses import dataclass
from typing import Any

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.events import Conversation
from pocketloop.contracts.examples import Example
from pocketloop.models.chat import encode_prompt, stop_ids
from pocketloop.tasks.tasks import TaskSpec

IGNORED = -100
"""Label of a token that carries no loss (torch's cross entropy skips it)."""
_PROBE = "answer"


@dataclass(frozen=True)
class TrainingSequence:
    """Token ids and labels of equal length; a label is the token's own id where loss is taken, else `IGNORED`."""

    input_ids: list[int]
    labels: list[int]


class SequenceEncoder:
    """Encodes a task's examples with one base's tokenizer.

    A single answer is `encode_prompt(prompt) + answer + end of turn`, so that nothing in training differs from what
    the model meets later. A chat example takes the loss on every assistant turn of the dialogue where the template
    marks those turns with `{% generation %}` and renders earlier turns as it rendered them live; otherwise on its last
    turn alone (Qwen 3, for one, drops an earlier turn's reasoning block).
    """

    def __init__(self, tokenizer: Any, task: TaskSpec, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.max_length = max_length
        self.shortened = 0
        """Dialogues that were cut after an earlier answer, since their last ones do not fit."""
        self.end = end_of_turn(tokenizer)
        template = tokenizer.chat_template or ""
        self.whole_dialogues = task.name == "chat" and "endgeneration" in template

    def encode(self, example: Example) -> TrainingSequence | None:
        """Tokens of `example`, cut after the last whole answer within `max_length`; `None` when no answer fits."""
        conversation = self.task.conversation(example.messages, example.role)
        prompt = encode_prompt(self.tokenizer, conversation[:-1], self.task.tools)
        answer = [*self._ids(conversation[-1]["content"]), self.end]
        ids = prompt + answer
        labels = [IGNORED] * len(prompt) + answer
        if self.whole_dialogues:
            labels = self._label_every_turn(conversation, ids) or labels
        if len(ids) > self.max_length:
            ends = (n for n in range(self.max_length, 0, -1) if labels[n - 1] == self.end)
            length = next(ends, 0)
            ids, labels = ids[:length], labels[:length]
            self.shortened += bool(ids)
        return TrainingSequence(ids, labels) if ids else None

    def _label_every_turn(self, conversation: Conversation, ids: list[int]) -> list[int] | None:
        rendered = self.tokenizer.apply_chat_template(
            conversation, tools=self.task.tools, return_dict=True, return_assistant_tokens_mask=True
        )
        if rendered["input_ids"][: len(ids)] != ids:
            return None
        said = rendered["assistant_masks"][: len(ids)]
        return [token if mine else IGNORED for token, mine in zip(ids, said, strict=True)]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def end_of_turn(tokenizer: Any) -> int:
    """The token that the chat template writes after an assistant's turn and at which generation stops.

    Raises:
        ModelError: the template ends a turn with no token that generation stops at, so a model could not learn to stop.
    """
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _PROBE}]
    rendered: str = tokenizer.apply_chat_template(turns, tokenize=False)
    after = tokenizer(rendered.rpartition(_PROBE)[2], add_special_tokens=False)["input_ids"]
    stops = stop_ids(tokenizer)
    found = next((token for token in after if token in stops), None)
    if found is None:
        raise ModelError(
            "the chat template ends an assistant's turn with no end-of-turn token; "
            "name a template that does under `chat_template` in the base's file"
        )
    return int(found)
