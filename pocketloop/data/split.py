"""Splitting by group, so that no person and no prompt stands on both sides."""

import warnings
from collections import defaultdict
from dataclasses import dataclass, field

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.privacy.placeholders import PLACEHOLDER

SPLITS = ("train", "validation", "test")


@dataclass
class Split:
    """The examples of each split, in their given order, and what was dropped to keep the splits apart."""

    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    dropped: list[Quarantined] = field(default_factory=list)

    def of(self, name: str) -> list[Example]:
        """The examples of the split called `name`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def split_by_group(examples: list[Example], validation: float, test: float, seed: int) -> Split:
    """Put about the shares `validation` and `test` of the groups aside.

    A group's place depends on `seed` and its own name alone, so it keeps it when data is added. A prompt that groups
    in several splits share (ignoring case, spacing and which pseudonym) stays in one of them, chosen by the prompt's
    own hash at the same shares: so a popular prompt is neither always tested nor never learned. A conversation that
    occurs twice is kept once.

    Raises:
        DataError: nothing is left to train on.
    """
    claims: defaultdict[str, set[str]] = defaultdict(set)
    placed = [(example, _place(example.group, validation, test, seed), _prompt_key(example)) for example in examples]
    for _, name, key in placed:
        claims[key].add(name)
    split = Split()
    seen: set[str] = set()
    for example, name, key in placed:
        owner = _owner(key, claims[key], validation, test, seed)
        if name != owner:
            split.dropped.append(_dropped(example, f"prompt stands in {owner}"))
        elif example.example_id in seen:
            split.dropped.append(_dropped(example, "duplicate conversation"))
        else:
            seen.add(example.example_id)
            split.of(name).append(example)
    groups = len({example.group for example in examples})
    if not split.train:
        raise DataError(f"no example is left to train on: {len(examples)} examples of {groups} groups; add data")
    if test > 0 and not split.test:
        warnings.warn(
            f"the test split is empty ({len(examples)} examples of {groups} groups): results need an evaluation set",
            stacklevel=2,
        )
    return split


def _place(name: str, validation: float, test: float, seed: int) -> str:
    share = int(sha256_text(f"{seed}:{name}")[:15], 16) / 16**15
    return "test" if share < test else "validation" if share < test + validation else "train"


def _owner(key: str, claims: set[str], validation: float, test: float, seed: int) -> str:
    if len(claims) == 1:
        return next(iter(claims))
    wanted = _place(f"prompt:{key}", validation, test, seed)
    return wanted if wanted in claims else next(name for name in SPLITS if name in claims)


def _prompt_key(example: Example) -> str:
    turns = [
        [turn.role, _flat(turn.content), [call.model_dump() for call in turn.tool_calls]] for turn in example.prompt
    ]
    return sha256_text(canonical_json(turns))


def _flat(text: str) -> str:
    return " ".join(PLACEHOLDER.sub(r"<\1>", text).casefold().split())


def _dropped(example: Example, reason: str) -> Quarantined:
    event_id = example.event_ids[0] if example.event_ids else None
    return Quarantined(stage="split", reason=reason, detail=f"example {example.example_id}", event_id=event_id)
