"""Splitting by group, so that no person and no prompt stands on both sides."""

import hashlib
import json
import warnings
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.files import atomic_file, canonical_json, sha256_text
from pocketloop.contracts.recipe import DataConfig
from pocketloop.contracts.reports import StageCount
from pocketloop.privacy.placeholders import PLACEHOLDER

SPLITS = ("train", "validation", "test")


def split_release(selected: Path, out: Path, data: DataConfig) -> StageCount:
    """Put about the shares `data.validation` and `data.test` of the groups aside.

    A group's place depends on `data.seed` and its own name alone, so it keeps it when data is added. A prompt that
    groups in several splits share (ignoring case, spacing and which pseudonym) stays in one of them, chosen by the
    prompt's own hash at the same shares: so a popular prompt is neither always tested nor never learned. A
    conversation that occurs twice is kept once. A pair or rated answer goes where its group goes, and nowhere if its
    prompt stands in another split. Files are read twice, and parsed once; only hashes are held: about 170
    bytes an example.

    Args:
        selected: `examples/part-*.jsonl`, `pairs.jsonl`, `rated.jsonl` and `quarantine.jsonl`.
        out: is given `splits/{train,validation,test}.jsonl`, the same under `splits/pairs/` and `splits/rated/`, and
            `quarantine.jsonl`, which holds what was left out here and before.
        data: shares and seed.

    Raises:
        DataError: nothing is left to train on.
    """
    examples = sorted((selected / "examples").glob("part-*.jsonl"))
    feedback = {"pairs": selected / "pairs.jsonl", "rated": selected / "rated.jsonl"}
    prompts, ids = _Prompts(data), array("Q")
    for row in _rows(*examples):
        prompts.claim(row["group"], row["messages"][:-1])
        ids.append(_number(row["example_id"]))
    # What only pairs and rated answers ask is shared out as well, but never moves an example.
    unlabelled = _Prompts(data, given=prompts)
    for row in _rows(*feedback.values()):
        unlabelled.claim(row["group"], _prompt(row))
    left_out: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    seen: set[int] = set()
    with ExitStack() as stack:
        quarantine = stack.enter_context(_writer(out / "quarantine.jsonl"))
        files = {name: stack.enter_context(_writer(out / "splits" / f"{name}.jsonl")) for name in SPLITS}
        quarantine.writelines(_lines(selected / "quarantine.jsonl"))
        for line, (name, owner), example_id in zip(_lines(*examples), prompts.decided(), ids, strict=True):
            if name == owner and example_id not in seen:
                seen.add(example_id)
                splits[name] += 1
                files[name].write(line)
                continue
            reason = "duplicate conversation" if name == owner else f"prompt stands in {owner}"
            left_out[reason] += 1
            quarantine.write(_dropped(json.loads(line), reason))
    entered = splits.total() + left_out.total()
    _check(splits, entered, prompts.groups, data)
    decided = unlabelled.decided()
    for kind, path in feedback.items():
        _split_feedback(path, out / "splits" / kind, decided)
    return StageCount(stage="split", entered=entered, kept=splits.total(), left_out=dict(sorted(left_out.items())))


class _Prompts:
    """Which split each prompt belongs to, held as one number and one small set of bits a prompt.

    Rows claim their prompts one after the other, and are decided on in the same order once all have.
    """

    def __init__(self, data: DataConfig, given: "_Prompts | None" = None) -> None:
        self._data = data
        self._given = given
        self._claims: dict[int, int] = {}
        self._places: dict[str, int] = given._places if given else {}
        self._rows = array("Q"), array("B"), array("B")  # prompt, place of its group, place that its own hash gives it

    @property
    def groups(self) -> int:
        return len(self._places)

    def claim(self, group: str, prompt: list[dict[str, Any]]) -> None:
        if group not in self._places:
            self._places[group] = _place(group, self._data)
        text, place = _prompt_key(prompt), self._places[group]
        key = _number(text)
        self._claims[key] = self._claims.get(key, 0) | 1 << place
        for column, value in zip(self._rows, (key, place, _place(f"prompt:{text}", self._data)), strict=True):
            column.append(value)

    def decided(self) -> Iterator[tuple[str, str]]:
        """For each row the split of its group, and the one that its prompt belongs to."""
        for key, place, wanted in zip(*self._rows, strict=True):
            claims = (self._given._claims.get(key, 0) if self._given else 0) or self._claims[key]
            yield SPLITS[place], SPLITS[wanted if claims >> wanted & 1 else (claims & -claims).bit_length() - 1]


def _split_feedback(path: Path, out: Path, decided: Iterator[tuple[str, str]]) -> None:
    with ExitStack() as stack:
        files = {name: stack.enter_context(_writer(out / f"{name}.jsonl")) for name in SPLITS}
        for line, (name, owner) in zip(_lines(path), decided, strict=False):
            if name == owner:
                files[name].write(line)


def _check(splits: Counter[str], entered: int, groups: int, data: DataConfig) -> None:
    if not splits["train"]:
        raise DataError(f"no example is left to train on: {entered} examples of {groups} groups; add data")
    if data.test > 0 and not splits["test"]:
        warnings.warn(
            f"the test split is empty ({entered} examples of {groups} groups): results need an evaluation set",
            stacklevel=3,
        )


def _place(name: str, data: DataConfig) -> int:
    """A place in `SPLITS`."""
    share = int(sha256_text(f"{data.seed}:{name}")[:15], 16) / 16**15
    return SPLITS.index(
        "test" if share < data.test else "validation" if share < data.test + data.validation else "train"
    )


def _prompt(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompt of a pair or of a rated answer."""
    found: list[dict[str, Any]] = row["prompt"] if "prompt" in row else row["messages"][:-1]
    return found


def _prompt_key(prompt: list[dict[str, Any]]) -> str:
    return sha256_text(canonical_json([[turn["role"], _flat(turn["content"]), turn["tool_calls"]] for turn in prompt]))


def _flat(text: str) -> str:
    by_type = PLACEHOLDER.sub(r"<\1>", text) if "<" in text else text
    return " ".join(by_type.casefold().split())


def _number(text: str) -> int:
    """Eight bytes in place of an identifier: two of a million share them with a chance of 3 in 10^8."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _dropped(row: dict[str, Any], reason: str) -> str:
    event_id = row["event_ids"][0] if row["event_ids"] else None
    left_out = Quarantined(stage="split", reason=reason, detail=f"example {row['example_id']}", event_id=event_id)
    return canonical_json(left_out.model_dump(mode="json")) + "\n"


def _rows(*paths: Path) -> Iterator[dict[str, Any]]:
    for line in _lines(*paths):
        yield json.loads(line)


def _lines(*paths: Path) -> Iterator[str]:
    """The lines of those files that exist, with their ends."""
    for path in paths:
        if path.is_file():
            with open(path, encoding="utf-8") as file:
                yield from file


@contextmanager
def _writer(path: Path) -> Iterator[TextIO]:
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield file
