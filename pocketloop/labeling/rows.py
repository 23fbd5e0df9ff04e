"""What labelling keeps of a shard: a short row and a finished line for each record, and counts of its words.

Only what depends on the record and the catalogue alone is kept; what others say of it is decided anew every night.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, Task, make_example
from pocketloop.contracts.files import canonical_json, sha256_file
from pocketloop.contracts.kept import entry_name, keep
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.labeling.extract import Candidate, EventFiles, Person, Place, roles_of, thumb_of
from pocketloop.labeling.pairs import AnswerKey, answer_key, rated_answer, says_something
from pocketloop.labeling.words import counts_of, label_of, read_counts, words_of, write_counts
from pocketloop.tasks.forms import FormChecker

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_ROWS, _LINES, _RATED, _COUNTS = "rows.jsonl", "lines.jsonl", "rated.jsonl", "counts.npz"
_SLICES = '"slices":{'


class Row(NamedTuple):
    """A record without its words; of an event without an answer only the first six fields are meant."""

    shard: int
    number: int
    key: str
    """Id of the event, or of the example."""
    group: str
    source: str
    offset: int
    answered: bool = False
    problem: str | None = None
    label: str = ""
    moment: float = 0.0
    person: Person = None
    corrects: bool = False
    says_something: bool = False
    asked: str = ""
    said: str = ""
    """Digests of prompt and answer."""
    in_doubt: bool = False
    words: int = 0

    @property
    def event_id(self) -> str:
        """The key, as candidates name it."""
        return self.key

    @property
    def answer(self) -> AnswerKey:
        """By what answers to one prompt are told."""
        return self.asked, self.said

    @property
    def place(self) -> Place:
        """Where the event's line begins."""
        return Place(self.shard, self.offset)


class Lines(NamedTuple):
    """What is written of a record, without line ends; empty where there is nothing."""

    example: str = ""
    """With the answer that was given. An event's does not say yet whether its user is new (`with_user`)."""
    rated: str = ""
    """The answer as its own user found it."""


class Rows:
    """The records of a validated folder, shard by shard: one for each file of events, and the examples as the last.

    What is not in `cache` yet is put there.
    """

    def __init__(self, folder: Path, recipe: Recipe, catalogue: Catalogue | None, cache: Path) -> None:
        self.events = EventFiles(folder, recipe.task, roles_of(recipe.data))
        self.checker = FormChecker(recipe.task, catalogue)
        self._task = recipe.task
        files = [*self.events.shards, folder / "examples.jsonl"]
        self.examples = len(files) - 1
        """Number of the shard that holds the examples."""
        depends: list[Any] = [recipe.task, roles_of(recipe.data), catalogue and catalogue.model_dump(mode="json")]
        depends.append(version("scikit-learn"))
        self._entries = [
            keep(
                cache / entry_name("label", sha256_file(path), shard == self.examples, *depends),
                self._writer(shard, path),
            )
            for shard, path in enumerate(files)
        ]

    def of_events(self) -> Iterator[tuple[Row, Lines]]:
        """The rows of all events with what is written of them."""
        for shard in range(self.examples):
            yield from self._shard(shard)

    def of_examples(self) -> Iterator[tuple[Row, Lines]]:
        """The rows of all examples with what is written of them."""
        return self._shard(self.examples)

    def counts(self, shard: int) -> "csr_matrix":
        """Counts of words and letters, one row for each of the shard's rows."""
        return read_counts(self._entries[shard] / _COUNTS)

    def _shard(self, shard: int) -> Iterator[tuple[Row, Lines]]:
        with ExitStack() as stack:
            entry = self._entries[shard]
            files = [stack.enter_context(open(entry / name, encoding="utf-8")) for name in (_ROWS, _LINES, _RATED)]
            for number, (row, example, rated) in enumerate(zip(*files, strict=True)):
                yield Row(shard, number, *json.loads(row)), Lines(example.rstrip("\n"), rated.rstrip("\n"))

    def _writer(self, shard: int, path: Path) -> Callable[[Path], set[str]]:
        records = self._described_examples(path) if shard == self.examples else self._described_events(shard)

        def write(folder: Path) -> set[str]:
            said, groups = [], set()
            with ExitStack() as stack:
                names = (_ROWS, _LINES, _RATED)
                files = [stack.enter_context(open(folder / name, "w", encoding="utf-8")) for name in names]
                for row, lines, words in records:
                    for file, line in zip(files, (canonical_json(row[2:]), *lines), strict=True):
                        file.write(line + "\n")
                    said.append(words)
                    groups.add(row.group)
            if self._task != "chat":
                write_counts(folder / _COUNTS, counts_of(said))
            return groups

        return write

    def _described_events(self, shard: int) -> Iterator[tuple[Row, Lines, str]]:
        for found in self.events.shard(shard):
            one = found.candidate
            if one is None:
                yield Row(shard, 0, found.event_id, found.group, "", found.place.offset), Lines(), ""
                continue
            asked, said = answer_key(one)
            row = Row(
                shard=shard,
                number=0,
                key=one.event_id,
                group=one.group,
                source=one.source,
                offset=found.place.offset,
                answered=True,
                problem=self.checker.problem(one.prompt, one.answer),
                label=label_of(one.answer),
                moment=one.moment,
                person=one.person,
                corrects=one.correction is not None,
                says_something=says_something(one.answer),
                asked=asked,
                said=said,
                in_doubt=one.in_doubt,
                words=one.words,
            )
            says = thumb_of(one) if row.says_something else None
            rated = line_of(rated_answer(one, says, self._task)) if says else ""
            yield row, Lines(line_of(example_of(one, one.answer, self._task)), rated), words_of(one.prompt)

    def _described_examples(self, path: Path) -> Iterator[tuple[Row, Lines, str]]:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                one = Example.model_validate_json(line)
                row = Row(
                    shard=self.examples,
                    number=0,
                    key=one.example_id,
                    group=one.group,
                    source=one.source,
                    offset=0,
                    answered=True,
                    problem=self.checker.problem(one.prompt, one.answer, grounded=False),
                    label=label_of(one.answer),
                )
                yield row, Lines(line_of(one)), words_of(one.prompt)


def example_of(candidate: Candidate, answer: Message, task: Task, user: str = "") -> Example:
    """The example that an event gives, with this answer; `user` says whether its user is new or old, if known."""
    known = {"locale": candidate.locale, "user": user}
    return make_example(
        task,
        [*candidate.prompt, answer],
        source=candidate.source,
        group=candidate.group,
        event_ids=[candidate.event_id],
        role=candidate.role,
        slices={dimension: value for dimension, value in known.items() if value},
    )


def with_user(line: str, user: str) -> str:
    """The line of an event's example with the slice `user`, as `example_of` would have it written."""
    if not user:
        return line
    # After the slices come texts alone, in which a quotation mark is escaped: the last place is the right one.
    head, _, tail = line.rpartition(_SLICES)
    locale, _, rest = tail.partition("}")
    return f'{head}{_SLICES}{locale}{"," if locale else ""}"user":"{user}"}}{rest}'


def line_of(record: BaseModel) -> str:
    """A record as it is written."""
    return canonical_json(record.model_dump(mode="json"))
