import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import InteractionEvent
from pocketloop.contracts.files import read_jsonl
from pocketloop.data.scrub_file import scrub_file
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.scrubber import Scrubber

MakeEvent = Callable[..., dict[str, Any]]


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_events_stay_events_and_a_device_is_one_person_wherever_its_events_stand(
    tmp_path: Path, event: MakeEvent, scrubber: Scrubber
) -> None:
    rows = [event("is grzęda home?", "No idea.", event_id="first")]
    rows += [event("what a day", "Yes.", event_id=f"e-{n}", device=f"d-{n}") for n in range(2, 1100)]
    rows += [event("hm", ("make_call", {"who": "Grzęda"}), event_id="last")]
    report = scrub_file(lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", scrubber)
    assert (report.count.entered, report.count.kept, report.scrubbed_shards) == (1100, 1100, 3)
    written = [InteractionEvent.model_validate(row) for row in read_jsonl(tmp_path / "out.jsonl")]
    assert [row.event_id for row in written] == [row["event_id"] for row in rows]
    called = written[-1].messages[1].tool_calls[0].arguments["who"]
    assert written[0].messages[0].content == f"is {called} home?" and PLACEHOLDER.fullmatch(called)
    assert written[0].device_id == written[-1].device_id != "d-1"


ROWS: list[tuple[dict[str, Any], str]] = [
    ({"input": "call Sandy Wu", "output": "phone"}, '{"input": "call P", "output": "phone"}'),
    (
        {"input": "call Sandy Wu", "function": "make_call", "arguments": {"who": "Sandy Wu", "times": 2}},
        '{"input": "call P", "function": "make_call", "arguments": {"times": 2, "who": "P"}}',
    ),
    (
        {"messages": [{"role": "user", "content": "call Sandy Wu"}, {"role": "assistant", "content": "OK"}], "x": 1},
        '{"messages": [{"content": "call P", "role": "user"}, {"content": "OK", "role": "assistant"}]}',
    ),
]


@pytest.mark.parametrize(("row", "expected"), ROWS)
def test_an_example_row_keeps_its_format(
    tmp_path: Path, scrubber: Scrubber, row: dict[str, Any], expected: str
) -> None:
    scrub_file(lines(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl", scrubber)
    (written,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert PLACEHOLDER.sub("P", written) == expected
    assert len(set(PLACEHOLDER.findall(written))) == 1


def test_two_rows_do_not_share_a_pseudonym(tmp_path: Path, scrubber: Scrubber) -> None:
    rows = [{"input": "call Sandy Wu", "output": "phone"}] * 2
    scrub_file(lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", scrubber)
    first, second = read_jsonl(tmp_path / "out.jsonl")
    assert first["input"] != second["input"]


def test_what_cannot_be_used_is_left_out_and_counted_by_reason(
    tmp_path: Path, event: MakeEvent, scrubber: Scrubber
) -> None:
    rows = [
        event("call Sandy Wu", "OK."),
        "",
        "{broken",
        "[1]",
        {"input": "x", "output": "y"},
        event("track 9912345678901234", "OK."),
        {"event_id": "no event"},
    ]
    report = scrub_file(lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", scrubber)
    assert (report.count.entered, report.count.kept) == (6, 1)
    assert report.count.left_out == {
        "format": 1,
        "malformed JSON": 1,
        "malformed event": 1,
        "not an object": 1,
        "unclear residue": 1,
    }
    assert len(list(read_jsonl(tmp_path / "out.jsonl"))) == 1


def test_compressed_in_and_out_and_nothing_raw_is_left_beside(tmp_path: Path, scrubber: Scrubber) -> None:
    (tmp_path / "in.gz").write_bytes(gzip.compress(b'{"input": "call Sandy Wu", "output": "phone"}\n'))
    out = tmp_path / "to" / "out.jsonl.gz"
    scrub_file(str(tmp_path / "in.gz"), out, scrubber, page=tmp_path / "page.html")
    assert b"Sandy" not in gzip.decompress(out.read_bytes()) and out.read_bytes()[:2] == b"\x1f\x8b"
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl.gz"]
    page = (tmp_path / "page.html").read_text()
    assert "PERSON" in page and "Sandy" not in page


@pytest.mark.parametrize("text", ["", "\n\n", "{broken\n", '{"neither": 1}\n'])
def test_a_file_without_a_usable_record_is_an_error_and_leaves_the_output_alone(
    tmp_path: Path, scrubber: Scrubber, text: str
) -> None:
    (tmp_path / "in.jsonl").write_text(text)
    (tmp_path / "out.jsonl").write_text("before")
    with pytest.raises(DataError, match="known formats"):
        scrub_file(str(tmp_path / "in.jsonl"), tmp_path / "out.jsonl", scrubber)
    assert (tmp_path / "out.jsonl").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_the_command_reports_what_it_did(home: Path, tmp_path: Path) -> None:
    import typer

    from pocketloop.cli.scrub import add_to

    app = typer.Typer()
    add_to(app)
    app.callback()(lambda: None)
    file = lines(tmp_path / "in.jsonl", [{"input": "call Sandy Wu", "output": "phone"}])
    arguments = ["scrub", file, "--out", str(tmp_path / "out.jsonl"), "--recipe", "functions", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["found"] == {"PERSON": 1}
