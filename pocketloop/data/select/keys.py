"""What one example is compared by: its words without case, spacing and pseudonyms, its label, and its phrasing.

Everything here works on rows as they stand in files (`Example`, `PreferencePair` and `RatedAnswer` as dictionaries).
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from pocketloop.contracts.files import canonical_json
from pocketloop.privacy.placeholders import PLACEHOLDER

SHINGLE = 5
"""Characters of a shingle. Five words would be most of a request to a phone, and a changed one would hide a copy."""

_WORD = re.compile(r"<[a-z_]+>|\w+(?:['’]\w+)*")
_NUMBER = re.compile(r"\d+(?:[:.,]\d+)*")
_TYPE = re.compile(r"<[a-z_]+>")
_HOLE = "*"
_HOLES = re.compile(r"\*(?: \*)+")


def by_type(text: str) -> str:
    """Every placeholder without its pseudonym: `<PERSON_3fa2b1>` becomes `<PERSON>`."""
    return PLACEHOLDER.sub(r"<\1>", text) if "<" in text else text


def words(text: str) -> list[str]:
    """Lower-case words and numbers; a placeholder is one word, punctuation is none."""
    return _WORD.findall(by_type(text).casefold())


def user_turns(prompt: list[dict[str, Any]]) -> Iterator[str]:
    """What the person said: other turns repeat the app's own words."""
    return (turn["content"] for turn in prompt if turn["role"] == "user")


def said(prompt: list[dict[str, Any]]) -> str:
    """The person's turns in normal form, one a line; a turn without any word stays as it is."""
    return "\n".join(" ".join(words(turn)) or turn.strip() for turn in user_turns(prompt))


def number(text: str) -> int:
    """Eight bytes in place of a text: two of a million texts share them with a chance of 3 in 10^8."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def conversation(row: dict[str, Any]) -> str:
    """A conversation as it stands: two rows with the same one are exact duplicates."""
    return canonical_json([row["task"], row["messages"]])


def label(task: str, answer: dict[str, Any]) -> str:
    """What reports may name: an intent's label and a function's name, both in the catalogue; a chat calls, or talks."""
    calls = answer["tool_calls"]
    if task == "chat":
        return "call" if calls else "text"
    return str(answer["content"].strip()) if task == "intent" else "+".join(sorted(call["name"] for call in calls))


def outcome(task: str, answer: dict[str, Any]) -> str:
    """What the answer does, with placeholders by type. Two prompts are only redundant when both lead to the same."""
    calls = [[call["name"], call["arguments"]] for call in answer["tool_calls"]]
    return by_type(canonical_json([label(task, answer), calls]).casefold())


def document(row: dict[str, Any]) -> str:
    """What near duplicates are told by: the person's words, and the answer's where it is free text."""
    turns, answer = row["messages"][:-1], row["messages"][-1]
    text = said(turns)
    return f"{text}\n{' '.join(words(answer['content']))}" if row["task"] == "chat" else text


def shingles(text: str) -> set[str]:
    """All runs of `SHINGLE` characters; a shorter text is one shingle."""
    return {text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1))}


def phrasing(row: dict[str, Any]) -> str:
    """What the person said with every value taken out: placeholders, numbers, and what stands in the call.

    All turns count: "yes please" is another request in every conversation. Words that are nothing but values have no
    phrasing; they stay as they are.
    """
    text = " / ".join(" ".join(words(turn)) for turn in user_turns(row["messages"][:-1]))
    open_text = text
    for value in sorted(set(_values(row["messages"][-1])), key=lambda value: (-len(value), value)):
        open_text = f" {open_text} ".replace(f" {value} ", f" {_HOLE} ").strip()
    open_text = _HOLES.sub(_HOLE, _NUMBER.sub(_HOLE, _TYPE.sub(_HOLE, open_text)))
    return text if open_text == _HOLE else open_text


def _values(answer: dict[str, Any]) -> Iterator[str]:
    """The texts in a call's arguments, as `words` writes them."""
    waiting: list[Any] = [call["arguments"] for call in answer["tool_calls"]]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str):
            text = " ".join(words(value))
            if text:
                yield text
