import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pocketloop.data.lines import HashingReader, read_lines, sha256_bytes
from pocketloop.data.parsing import ParsedEvent, Refused, parse_event

NOW = datetime(2026, 11, 20, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["schema", "event_id", "device_id", "ts", "adapter", "consent", "messages", "feedback", "metrics", "extra"]
GOOD: dict[str, Any] = {
    "event_id": "e1",
    "device_id": "d1",
    "ts": "2026-11-01T10:00:00Z",
    "adapter": {"skill": "functions"},
    "consent": {"training": True, "policy": "p"},
    "messages": [{"role": "user", "content": "hello"}],
}


def read(data: bytes) -> ParsedEvent | Refused:
    try:
        return parse_event(data, NOW)
    except Refused as refused:
        return refused


@given(st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b" ")), max_size=20), st.integers(1, 50))
def test_lines_come_out_as_bytes_split_them_and_long_ones_are_told_by_digest(pieces: list[bytes], limit: int) -> None:
    content = b"\n".join([b"#", *pieces])  # the first byte keeps encoding marks and gzip's magic out of this test
    raw = HashingReader(io.BytesIO(content))
    expected = content.split(b"\n")
    if not expected[-1]:
        expected.pop()
    found = list(read_lines(raw, max_line=limit))
    assert [line.number for line in found] == list(range(1, len(expected) + 1))
    for line, piece in zip(found, expected, strict=True):
        if len(piece) > limit:
            assert (line.problem, line.data, line.digest) == ("too long", b"", sha256_bytes(piece))
        else:
            assert (line.problem, line.data) == (None, piece)
    assert raw.hexdigest() == sha256_bytes(content)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_raise(content: bytes) -> None:
    for line in read_lines(HashingReader(io.BytesIO(content))):
        if line.problem is None:
            read(line.data)


@given(st.one_of(st.binary(max_size=200), JSON.map(lambda v: json.dumps(v).encode())))
def test_every_line_is_read_or_refused(data: bytes) -> None:
    assert isinstance(read(data), Refused | ParsedEvent)


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_an_event_with_any_key_replaced_is_read_or_refused_without_quoting_it(changes: dict[str, Any]) -> None:
    parsed = read(json.dumps(GOOD | changes).encode())
    if isinstance(parsed, ParsedEvent):
        assert json.loads(parsed.raw)["device_id"] == parsed.device_id
    else:
        assert parsed.reason in {"schema", "consent", "future", "encoding", "malformed JSON"}


@given(st.permutations(list(GOOD)), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_the_digest_depends_on_what_an_event_says_not_on_how_it_is_written(order: list[str], extra: str) -> None:
    plain = read(json.dumps(GOOD | {"note": extra}).encode())
    rewritten = json.dumps({key: GOOD[key] for key in order} | {"note": extra}, ensure_ascii=False, indent=1)
    mixed = read(rewritten.encode())
    assert isinstance(plain, ParsedEvent) and isinstance(mixed, ParsedEvent)
    assert plain.digest == mixed.digest
    bare = read(json.dumps(GOOD).encode())
    assert isinstance(bare, ParsedEvent) and bare.digest != plain.digest


def test_a_line_that_is_spilled_is_kept_byte_for_byte(tmp_path: Path) -> None:
    content = b"a" * 100 + b"\n" + b"b" * 5
    long, short = read_lines(HashingReader(io.BytesIO(content)), spill=tmp_path / "spill", max_line=10)
    assert long.spilled is not None and long.spilled.read_bytes() == b"a" * 100
    assert (short.number, short.data) == (2, b"b" * 5)
