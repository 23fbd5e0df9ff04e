from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import make_example
from pocketloop.contracts.recipe import Catalogue
from pocketloop.data.descriptors import FLAGS, NAMES, NUMBERS, DescriptorFile, describe_example, read_descriptors

LABELS = Catalogue(labels=["music", "weather"])


def described(said: str, answer: str, catalogue: Catalogue = LABELS) -> dict[str, object]:
    turns = [Message(role="user", content=said), Message(role="assistant", content=answer)]
    return describe_example(make_example("intent", turns, source="f"), catalogue)


def test_a_record_is_described_without_being_quoted() -> None:
    row = described("Überrasche <PERSON_0a0b0c>, bitte", "music")
    assert (row["turns"], row["placeholders"], row["answer"], row["known_answer"]) == (2, 1, "music", 1)
    assert row["non_ascii"] == round(1 / len("Überrasche <PERSON_0a0b0c>, bitte\nmusic"), 4)
    assert described("hi", "my own words")["answer"] is None


def test_a_call_is_named_only_when_the_catalogue_knows_it() -> None:
    catalogue = Catalogue(functions=[{"name": "play"}])
    for name, known in (("play", "play"), ("my secret", None)):
        answer = Message(role="assistant", tool_calls=[ToolCall(name=name, arguments={"a": 1, "b": 2})])
        example = make_example("function_call", [Message(role="user", content="x"), answer], source="f")
        row = describe_example(example, catalogue)
        assert (row["answer"], row["arguments"], row["known_answer"]) == (known, 2, int(known is not None))


def test_rows_stream_into_batches_and_come_back_as_compact_columns(tmp_path: Path) -> None:
    path = tmp_path / "descriptors.parquet"
    with DescriptorFile(path) as file:
        for number in range(25_000):
            file.add(described("x" * (number % 50), ["music", "weather"][number % 2]))
    assert pq.ParquetFile(path).num_row_groups == 3
    frame = read_descriptors(path)
    assert list(frame.columns) == [*NAMES, *NUMBERS, *FLAGS]
    assert list(frame["prompt_characters"]) == [number % 50 for number in range(25_000)]
    assert list(frame["answer"][:3]) == ["music", "weather", "music"]
    assert frame.memory_usage(deep=True).sum() < 60 * len(frame)


def test_an_empty_table_and_a_missing_one(tmp_path: Path) -> None:
    with DescriptorFile(tmp_path / "none.parquet"):
        pass
    assert len(read_descriptors(tmp_path / "none.parquet")) == 0
    with pytest.raises(DataError, match="no descriptors"):
        read_descriptors(tmp_path / "absent.parquet")
