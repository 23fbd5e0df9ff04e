"""Small releases and recipes of an adapter called `mine`."""

from pathlib import Path
from typing import Any

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer, make_example
from pocketloop.contracts.files import Folder, write_jsonl
from pocketloop.contracts.recipe import Recipe


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def asked(count: int, start: int = 0) -> list[Example]:
    return [
        make_example("intent", [user(f"request {n}"), assistant(f"label {n % 3}")], source="test")
        for n in range(start, start + count)
    ]


def recipe(**train: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "adapter": "mine",
            "task": "intent",
            "base": "tiny",
            "catalogue": "configs/catalogues/household-intents.json",
            "data": {"sources": [{"kind": "events", "skill": "mine"}]},
            "train": train,
        }
    )


def release(
    folder: Path,
    examples: list[Example],
    pairs: list[PreferencePair] | None = None,
    rated: list[RatedAnswer] | None = None,
) -> Folder:
    splits = folder / "splits"
    write_jsonl(splits / "train.jsonl", examples)
    write_jsonl(splits / "validation.jsonl", [])
    for kind, rows in (("pairs", pairs), ("rated", rated)):
        if rows is not None:
            write_jsonl(splits / kind / "train.jsonl", list(rows))
    return Folder.of(splits)


def pair(pair_id: str = "p1") -> PreferencePair:
    return PreferencePair(
        pair_id=pair_id,
        task="chat",
        source="test",
        group="g",
        prompt=[user("call <PERSON_3fa2b1> for me")],
        chosen=assistant("calling <PERSON_3fa2b1>"),
        rejected=assistant("who is <PERSON_3fa2b1>? <PERSON_aaaaaa>?"),
        reason="judge",
    )
