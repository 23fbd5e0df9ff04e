import json
from pathlib import Path

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.home import Home
from pocketloop.labeling.human import (
    import_verdicts,
    imported_verdicts,
    known_rubrics,
    read_verdicts,
)

RUBRICS = ["right_answer", "helpful_answer"]


def write(folder: Path, *rows: object) -> Path:
    path = folder / "said.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_raters_last_word_on_an_answer_counts(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"event_id": "e1", "verdict": "right", "rater": "anna"},
        "",
        {"event_id": "e1", "verdict": "wrong", "rater": "anna"},
        {"event_id": "e1", "verdict": "right", "rater": "ben", "rubric": "helpful_answer"},
        {"example_id": "x", "verdict": "right"},
    )
    found = {(v.event_id or v.example_id, v.rater, v.rubric): v.verdict for v in read_verdicts(path, RUBRICS)}
    assert found == {
        ("e1", "anna", "right_answer"): "wrong",
        ("e1", "ben", "helpful_answer"): "right",
        ("x", "", "right_answer"): "right",
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "said.jsonl:2: not a JSON object"),
        ("[1]", "said.jsonl:2: not a JSON object"),
        ({"event_id": "e", "verdict": "maybe"}, r"said.jsonl:2: key `verdict`.*'maybe'"),
        ({"event_id": "e"}, "said.jsonl:2: key `verdict` is missing"),
        ({"verdict": "right"}, "said.jsonl:2: give either `event_id` or `example_id`"),
        ({"event_id": "e", "example_id": "x", "verdict": "right"}, "give either"),
        ({"event_id": "e", "verdic": "right"}, "unknown key `verdic`; did you mean `verdict`"),
        ({"event_id": "e", "verdict": "right", "rubric": "right_answr"}, "did you mean 'right_answer'"),
        ({"event_id": "", "verdict": "right"}, "key `event_id`"),
        ({"event_id": "e", "verdict": "right", "rater": 7}, "key `rater`"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line_and_key(tmp_path: Path, row: object, message: str) -> None:
    path = write(tmp_path, {"event_id": "e0", "verdict": "right"}, row)
    with pytest.raises(DataError, match=message):
        read_verdicts(path, RUBRICS)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_verdicts(tmp_path / "absent.jsonl", RUBRICS)


def test_imported_verdicts_add_up_and_a_faulty_file_adds_nothing(home: Path, tmp_path: Path) -> None:
    assert set(RUBRICS) <= set(known_rubrics())
    path = write(tmp_path, {"event_id": "e1", "verdict": "right"}, {"event_id": "e2", "verdict": "right"})
    assert import_verdicts(Home(), path) == (2, 2)
    assert import_verdicts(Home(), path) == (2, 0)
    changed = write(tmp_path, {"event_id": "e2", "verdict": "wrong"}, {"event_id": "e3", "verdict": "wrong"})
    assert import_verdicts(Home(), changed) == (2, 2)
    said = {verdict.event_id: verdict.verdict for verdict in imported_verdicts(Home())}
    assert said == {"e1": "right", "e2": "wrong", "e3": "wrong"}
    with pytest.raises(DataError):
        import_verdicts(Home(), write(tmp_path, {"event_id": "e4", "verdict": "right"}, "{"))
    assert len(imported_verdicts(Home())) == 3
