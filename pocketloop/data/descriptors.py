"""Numbers and names that describe a record without quoting it: what is validated and watched for drift."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import Catalogue
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.records import ScrubbedEvent
from pocketloop.tasks.turns import up_to_answer

Descriptors = dict[str, Any]

NUMBERS = ("turns", "prompt_characters", "answer_characters", "arguments", "non_ascii", "placeholders")
NAMES = ("kind", "answer", "locale", "app_version", "rating")
FLAGS = ("has_answer", "roles_ordered", "garbled", "known_answer")
"""What rules are about: 0 or 1, but `garbled` counts characters."""

_BATCH = 10_000
_TAG = re.compile(r"[\w.+-]{1,32}")
_GARBLED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")


class DescriptorFile:
    """Writes rows to a Parquet file in batches: `NAMES` as text, `NUMBERS` and `FLAGS` as 32-bit numbers."""

    def __init__(self, path: Path, flags: Sequence[str] = FLAGS) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = {name: pa.float32() if name == "non_ascii" else pa.int32() for name in (*NUMBERS, *flags)}
        self._schema = pa.schema([*((name, pa.string()) for name in NAMES), *number.items()])
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[Descriptors] = []

    def __enter__(self) -> "DescriptorFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: Descriptors) -> None:
        """Append a row; keys without a column are left out."""
        self._rows.append(row)
        if len(self._rows) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {name: [row[name] for row in self._rows] for name in self._schema.names}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows = []


def read_descriptors(path: Path, columns: Sequence[str] | None = None) -> Any:
    """The table as a data frame: names as categories, numbers as wide as they were written.

    Raises:
        DataError: there is no such file.
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: no descriptors; validate the data first, or delete the release it belongs to")
    return pq.read_table(path, columns=columns, read_dictionary=list(NAMES)).to_pandas()


def describe_event(event: ScrubbedEvent, task: Task, catalogue: Catalogue | None) -> Descriptors:
    """Describe a scrubbed event; whether its answer is right is the judge's affair, so `known_answer` is 1."""
    said = up_to_answer(task, event.messages)
    return {
        "kind": "event",
        "event_id": event.event_id,
        "locale": _tag(event.locale),
        "app_version": _tag(event.app_version),
        "rating": event.feedback.rating or "none",
        **_describe(event.messages, said, task, catalogue),
        "known_answer": 1,
    }


def describe_example(example: Example, catalogue: Catalogue | None) -> Descriptors:
    """Describe an example of an example file."""
    found = _describe(example.messages, example.messages, example.task, catalogue)
    known = example.task == "chat" or found["answer"] is not None
    return {
        "kind": "example",
        "event_id": None,
        "locale": "none",
        "app_version": "none",
        "rating": "none",
        **found,
        "known_answer": int(known),
    }


def _describe(
    messages: Sequence[Message], said: list[Message] | None, task: Task, catalogue: Catalogue | None
) -> Descriptors:
    prompt, answer = (said[:-1], said[-1]) if said else (messages, None)
    text = "\n".join(message.content for message in messages)
    calls = answer.tool_calls if answer else []
    return {
        "turns": len(messages),
        "prompt_characters": sum(len(message.content) for message in prompt),
        "answer_characters": len(answer.content) if answer else 0,
        "arguments": sum(len(call.arguments) for call in calls),
        "non_ascii": round(sum(character > "\x7f" for character in text) / max(1, len(text)), 4),
        "placeholders": len(PLACEHOLDER.findall(text)),
        "has_answer": int(answer is not None and bool(answer.content.strip() or calls)),
        "roles_ordered": int(_in_order(messages)),
        "garbled": len(_GARBLED.findall(text)),
        "answer": _answer_name(answer, task, catalogue),
    }


def _answer_name(answer: Message | None, task: Task, catalogue: Catalogue | None) -> str | None:
    """The label or function, if the catalogue knows it: anything else could be a person's words."""
    if answer is None:
        return None
    if task == "chat":
        return "call" if answer.tool_calls else "text"
    if catalogue is None:
        return None
    if task == "intent":
        label = answer.content.strip()
        return label if label in catalogue.labels else None
    name = answer.tool_calls[0].name if answer.tool_calls else ""
    return name if catalogue.function(name) else None


def _in_order(messages: Sequence[Message]) -> bool:
    """System turns only at the beginning, a user's turn first after them, a tool's only after a call or another's."""
    roles = [message.role for message in messages]
    start = next((at for at, role in enumerate(roles) if role != "system"), len(roles))
    if "system" in roles[start:] or roles[start : start + 1] != ["user"]:
        return False
    return all(
        roles[at - 1] == "tool" or messages[at - 1].tool_calls
        for at in range(start + 1, len(roles))
        if roles[at] == "tool"
    )


def _tag(text: str) -> str:
    """A locale or version as the phone named it, unless it is no such thing."""
    return text if _TAG.fullmatch(text) else "other" if text else "none"
