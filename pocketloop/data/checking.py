"""What validation keeps of a file of records: those that pass, why others do not, and a description of each."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import canonical_json, sha256_file
from pocketloop.contracts.kept import entry_name, keep
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.data.descriptors import FLAGS, DescriptorFile, Descriptors, describe_event, describe_example
from pocketloop.privacy.records import ScrubbedEvent

if TYPE_CHECKING:
    import pyarrow as pa

PASSED = "passed.jsonl"
_BROKEN, _ROWS, _KEYS = "broken.jsonl", "rows.parquet", "keys.npy"


@dataclass(frozen=True)
class Rule:
    """What every row must satisfy: `column` lies in [`low`, `high`]; the reason is given to a row that does not."""

    column: str
    low: float
    high: float
    reason: str

    def holds(self, row: Descriptors) -> bool:
        """Whether one row satisfies the rule."""
        return self.low <= float(row[self.column]) <= self.high


RULES = (
    Rule("has_answer", 1, 1, "no answer"),
    Rule("roles_ordered", 1, 1, "roles out of order"),
    Rule("turns", 2, 200, "too few or too many turns"),
    Rule("prompt_characters", 1, 20_000, "empty or overlong prompt"),
    Rule("answer_characters", 0, 8_000, "overlong answer"),
    Rule("garbled", 0, 0, "garbled text"),
    Rule("known_answer", 1, 1, "answer not in the catalogue"),
)


class Broken(NamedTuple):
    """A record that breaks a rule: its line, counted from 1."""

    number: int
    reason: str
    event_id: str | None


def check(path: Path, recipe: Recipe, catalogue: Catalogue | None, cache: Path) -> Path:
    """The folder with what is known of the records in `path`: the lines that pass (`PASSED`), and what is read below.

    It lies in `cache`, and is made if it is not there.
    """
    names = catalogue and catalogue.model_dump(mode="json")
    are_examples = path.name == "examples.jsonl"

    def write(folder: Path) -> set[str]:
        import numpy as np

        groups, keys = set(), list[int]()
        with (
            open(folder / PASSED, "w", encoding="utf-8") as passed,
            open(folder / _BROKEN, "w", encoding="utf-8") as broken,
            DescriptorFile(folder / _ROWS, (*FLAGS, "kept")) as described,
        ):
            for number, line, group, row in _described(path, are_examples, recipe, catalogue):
                rule = next((rule for rule in RULES if not rule.holds(row)), None)
                row["kept"] = int(rule is None)
                described.add(row)
                groups.add(group)
                keys.append(_key(row["event_id"]))
                if rule is None:
                    passed.write(line)
                else:
                    broken.write(canonical_json(Broken(number, rule.reason, row["event_id"])) + "\n")
        np.save(folder / _KEYS, np.array(keys, dtype=np.uint64))
        return groups

    return keep(cache / entry_name("validate", sha256_file(path), are_examples, recipe.task, names), write)


def broken(entry: Path) -> Iterator[Broken]:
    """The records of one file that break a rule, in order."""
    with open(entry / _BROKEN, encoding="utf-8") as lines:
        for line in lines:
            yield Broken(*json.loads(line))


def described(entries: list[Path]) -> "pa.Table":
    """The descriptors of every record, with two marks: `kept`, and `repeated` where an event is there a second time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables([pq.read_table(entry / _ROWS) for entry in entries])
    keys = np.concatenate([np.load(entry / _KEYS) for entry in entries])
    _, first = np.unique(keys, return_index=True)
    repeated = keys != 0
    repeated[first] = False
    return table.append_column("repeated", pa.array(repeated.astype(np.int32)))


def _described(
    path: Path, are_examples: bool, recipe: Recipe, catalogue: Catalogue | None
) -> Iterator[tuple[int, str, str, Any]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if are_examples:
                example = Example.model_validate_json(line)
                yield number, line, example.group, describe_example(example, catalogue)
            else:
                event = ScrubbedEvent.model_validate_json(line)
                yield number, line, event.group, describe_event(event, recipe.task, catalogue)


def _key(event_id: str | None) -> int:
    """Eight bytes in place of an event's id; 0 where there is no event."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest()) if event_id is not None else 0
