"""How long a release's sequences are, in the base's own tokens: what memory and time are counted from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.preference_data import encode_answer, encode_pair
from pocketloop.training.stage import Split
from pocketloop.training.tokens import SequenceEncoder


@dataclass(frozen=True)
class Lengths:
    """`rows` sequences of `tokens` in all, of which `answers` carry a loss; the longest row and the longest answer.

    A pair's row holds its prompt once and both answers.
    """

    rows: int
    tokens: int
    answers: int
    longest: int
    longest_answer: int

    @classmethod
    def of(cls, measured: Iterable[tuple[int, int]]) -> "Lengths | None":
        """From (tokens of a row, of these in its answers); `None` when there is no row."""
        rows = list(measured)
        if not rows:
            return None
        lengths, answers = zip(*rows, strict=True)
        return cls(len(rows), sum(lengths), sum(answers), max(lengths), max(answers))

    def within(self, most: int) -> "Lengths":
        """The same with rows of at most `most` tokens: longer ones are left out of training."""
        return Lengths(self.rows, self.tokens, self.answers, min(self.longest, most), min(self.longest_answer, most))


@dataclass(frozen=True)
class DataLengths:
    """Of each kind of record that training knows; `None` where there is none, or nothing is known."""

    examples: Lengths | None = None
    pairs: Lengths | None = None
    rated: Lengths | None = None


def measure_lengths(tokenizer: Any, task: TaskSpec, data: Split) -> DataLengths:
    """Lengths of every record of `data`."""
    encoder = SequenceEncoder(tokenizer, task, max_length=1 << 30)
    return DataLengths(
        examples=Lengths.of(_answered(encoder, example.messages, example.role) for example in data.examples),
        pairs=Lengths.of(_pair(encoder, pair) for pair in data.pairs),
        rated=Lengths.of(_answered(encoder, one.messages, one.role) for one in data.rated),
    )


def measure_longest(tokenizer: Any, task: TaskSpec, data: Split, most: int = 16) -> DataLengths:
    """Lengths of the `most` records of each kind that have the most characters: what memory needs, at no cost."""

    def characters(record: Example | PreferencePair | RatedAnswer) -> int:
        return len(record.model_dump_json())

    longest = Split(
        nlargest(most, data.examples, key=characters),
        nlargest(most, data.pairs, key=characters),
        nlargest(most, data.rated, key=characters),
    )
    return measure_lengths(tokenizer, task, longest)


def _answered(encoder: SequenceEncoder, messages: Sequence[Message], role: str) -> tuple[int, int]:
    prompt, answer = encode_answer(encoder, messages, role)
    return len(prompt) + len(answer), len(answer)


def _pair(encoder: SequenceEncoder, pair: PreferencePair) -> tuple[int, int]:
    encoded = encode_pair(encoder, pair)
    return encoded.row_length, len(encoded.chosen_ids) + len(encoded.rejected_ids)
