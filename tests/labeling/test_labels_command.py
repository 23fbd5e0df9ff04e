import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pocketloop.cli import labels
from pocketloop.contracts.errors import DataError

app = typer.Typer()
labels.add_to(app)


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["labels", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.output) if "--json" in arguments else result.output


def test_a_file_of_verdicts_is_imported_once(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text('{"event_id": "e1", "verdict": "right", "rater": "anna"}\n', encoding="utf-8")
    assert run("import", str(path), "--json") == {"file": str(path), "verdicts": 1, "new": 1}
    assert "0 new or changed" in run("import", str(path))


def test_without_a_release_there_is_no_status(home: Path) -> None:
    with pytest.raises(DataError, match="pocketloop curate functions"):
        run("status", "functions")


@pytest.mark.slow
def test_without_answers_nothing_waits(home: Path) -> None:
    assert run("disagreements", "functions", "--json") == []
    assert "0 answers" in run("disagreements", "functions", "--open")
