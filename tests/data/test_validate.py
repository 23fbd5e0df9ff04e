import io
import logging
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import IntentRow, example_from_row
from pocketloop.contracts.files import Folder, read_jsonl, sha256_file, write_jsonl
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.data.checking import RULES
from pocketloop.data.validate import validate

pytestmark = pytest.mark.slow  # importing Great Expectations takes seconds

LABELS = Catalogue(labels=["music", "weather"])


def event(number: int, *turns: tuple[str, str], **changes: Any) -> dict[str, Any]:
    said = turns or (("user", f"Please play {number}"), ("assistant", "music" if number % 2 else "weather"))
    return {
        "event_id": f"e{number}",
        "group": f"g-{number}",
        "ts": "2026-11-01T10:00:00Z",
        "app_version": "4.2.0",
        "locale": "en-US",
        "adapter": {"skill": "intent"},
        "consent": {"training": True, "policy": "p"},
        "messages": [{"role": role, "content": content} for role, content in said],
        "feedback": {"rating": None},
        "metrics": {},
        "found": {},
    } | changes


def run(tmp_path: Path, events: list[Any], examples: list[Any] | None = None, task: str = "intent") -> Any:
    folder = tmp_path / "scrubbed"
    write_jsonl(folder / "events-000000001-000000500.jsonl", events)
    write_jsonl(folder / "examples.jsonl", examples or [])
    write_jsonl(folder / "quarantine.jsonl", [{"stage": "scrub", "reason": "residue", "event_id": "e0"}])
    recipe = Recipe.model_validate(
        {
            "adapter": "a",
            "task": task,
            "base": "tiny",
            "catalogue": "c.yaml",
            "data": {"sources": [{"kind": "events", "skill": "intent"}]},
        }
    )
    return validate(folder, recipe, LABELS, tmp_path / "out")


GOOD = [event(n) for n in range(1, 31)]


def test_good_data_passes_unchanged_and_is_described(tmp_path: Path) -> None:
    rows = [IntentRow(input="rain?", output="weather"), IntentRow(input="rain?", output="weather")]
    report = run(tmp_path, GOOD, [example_from_row(row, source="f") for row in rows])
    assert (report.count.entered, report.count.kept, report.success) == (32, 32, True)
    assert len(report.expectations) >= 5 + len(RULES)
    for name in ("events-000000001-000000500.jsonl", "examples.jsonl"):
        assert sha256_file(tmp_path / "scrubbed" / name) == sha256_file(tmp_path / "out" / name)
    described = pd.read_parquet(tmp_path / "out" / "descriptors.parquet")
    assert list(described["kind"]) == ["event"] * 30 + ["example"] * 2
    assert set(described["answer"]) == {"music", "weather"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (event(99, ("user", "play")), "no answer"),
        (event(99, ("user", "play"), ("assistant", " ")), "no answer"),
        (event(99, ("assistant", "hi"), ("user", "play"), ("assistant", "music")), "roles out of order"),
        (event(99, ("user", "play"), ("system", "x"), ("assistant", "music")), "roles out of order"),
        (event(99, ("user", "play"), ("tool", "x"), ("assistant", "music")), "roles out of order"),
        (event(99, ("user", ""), ("assistant", "music")), "empty or overlong prompt"),
        (event(99, ("user", "x" * 30_000), ("assistant", "music")), "empty or overlong prompt"),
        (event(99, ("user", "pl\ufffdy"), ("assistant", "music")), "garbled text"),
    ],
)
def test_a_row_that_breaks_a_rule_is_left_out_with_its_reason(tmp_path: Path, bad: Any, reason: str) -> None:
    report = run(tmp_path, [*GOOD, bad])
    assert report.count.left_out == {reason: 1}
    before, left_out = read_jsonl(tmp_path / "out" / "quarantine.jsonl")
    assert before["event_id"] == "e0"
    assert (left_out["reason"], left_out["event_id"]) == (reason, "e99")
    assert left_out["where"] == "events-000000001-000000500.jsonl:31"
    kept = list(read_jsonl(tmp_path / "out" / "events-000000001-000000500.jsonl"))
    assert [row["event_id"] for row in kept] == [row["event_id"] for row in GOOD]


def test_an_example_with_an_unknown_label_is_left_out_but_an_events_answer_is_left_to_the_judge(
    tmp_path: Path,
) -> None:
    example = example_from_row(IntentRow(input="hi", output="musik"), source="f")
    report = run(tmp_path, [*GOOD, event(50, ("user", "hi"), ("assistant", "musik"))], [example])
    assert report.count.left_out == {"answer not in the catalogue": 1}


@pytest.mark.parametrize(
    ("events", "expectation"),
    [
        ([], "there is at least one row"),
        ([*GOOD, GOOD[0]], "no event occurs twice"),
        ([event(n, ("user", "x"), ("assistant", "music")) for n in range(9)], "at least two different answers occur"),
        ([*GOOD, *(event(n, ("user", "x")) for n in range(100, 110))], "has_answer is in"),
        (
            [*GOOD, *(event(n, ("user", "x")) for n in range(100, 105))]
            + [event(n, ("user", ""), ("assistant", "music")) for n in range(105, 110)],
            "80% of the rows break no rule",
        ),
    ],
)
def test_a_dataset_that_is_not_what_it_should_be_stops_the_run_and_is_named(
    tmp_path: Path, events: list[Any], expectation: str
) -> None:
    with pytest.raises(DataError, match=expectation):
        run(tmp_path, events)


def test_no_descriptor_and_no_output_quotes_anybody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = event(99, ("user", "my secret"), ("assistant", "the secret"), locale="a secret place", app_version="")
    noise = io.StringIO()
    with redirect_stdout(noise), redirect_stderr(noise), caplog.at_level(logging.INFO):
        report = run(tmp_path, [*GOOD, secret])
    assert noise.getvalue() == "" and caplog.text == ""
    for name in ("validation.md", "quarantine.jsonl"):
        assert "secret" not in (tmp_path / "out" / name).read_text()
    assert "secret" not in pd.read_parquet(tmp_path / "out" / "descriptors.parquet").to_csv()
    assert "secret" not in report.model_dump_json()


def test_validating_twice_gives_the_same_folder(tmp_path: Path) -> None:
    run(tmp_path, GOOD)
    first = Folder.of(tmp_path / "out").digest
    run(tmp_path, GOOD)
    assert Folder.of(tmp_path / "out").digest == first
