"""Bad input on the command line: one clear line, a sensible status, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))


def run(home: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "POCKETLOOP_HOME": str(home), "COLUMNS": "160"}
    return subprocess.run(
        [POCKETLOOP, *arguments], env=environment, input=stdin, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["retrain", "functoins"], 2, "did you mean 'functions'"),
        (["recipe", "check", "functions", "--set", "train.lora.rank=4"], 2, "unknown key `train.lora.rank`"),
        (["recipe", "check", "functions", "--set", "base=tinny"], 2, "did you mean 'tiny'"),
        (["data", "import", "no-such-file.jsonl"], 1, "no-such-file.jsonl"),
        (["new", "x", "--task", "poetry", "--examples", "x.jsonl"], 2, "expected intent, function_call or chat"),
        (["data", "inspect"], 1, "the event log is empty"),
    ],
)
def test_a_mistake_gives_one_clear_line(home: Path, arguments: list[str], status: int, message: str) -> None:
    done = run(home, *arguments)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


HEAVY = ("torch", "transformers", "zenml", "mlflow", "pandas", "numpy", "spacy")
RECORDS = ("pocketloop.contracts.recipe", "pocketloop.contracts.examples", "pocketloop.contracts.reports")


@pytest.mark.parametrize(
    ("arguments", "completed", "unwanted"),
    [
        ("--help", "", (*HEAVY, *RECORDS, "pydantic", "yaml", "rich")),
        ("retrain --help", "", (*HEAVY, *RECORDS, "yaml", "rich")),  # pydantic is how Typer reads options
        ("", "", (*HEAVY, *RECORDS, "yaml")),
        ("", "pocketloop retrain fun", (*HEAVY, *RECORDS, "yaml", "rich")),
        ("recipe check functions", "", (*HEAVY, "pocketloop.contracts.examples", "pocketloop.contracts.reports")),
    ],
)
def test_a_command_loads_only_what_it_uses(
    home: Path, arguments: str, completed: str, unwanted: tuple[str, ...]
) -> None:
    program = (
        f"import sys; from pocketloop.cli.main import main; sys.argv = ['pocketloop', *{arguments!r}.split()]\n"
        "try: main()\nexcept SystemExit as end: status = end.code\n"
        f"loaded = [name for name in {unwanted!r} if name in sys.modules]\n"
        "sys.exit(f'imported {loaded}' if loaded else status)"
    )
    completion = {"_POCKETLOOP_COMPLETE": "complete_bash", "COMP_WORDS": completed, "COMP_CWORD": "2"}
    environment = {**os.environ, "POCKETLOOP_HOME": str(home / "fresh"), **(completion if completed else {})}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "functions" in done.stdout if completed else done.stdout


def test_every_command_has_help_with_an_example(home: Path) -> None:
    commands = ["retrain", "curate", "train", "prepare-base", "new", "trace", "evaluate", "ui"]
    commands += ["stack apply", "recipe check", "recipe show", "data import", "data inspect", "data demo"]
    commands += ["review list", "review show"]
    for command in commands:
        done = run(home, *command.split(), "--help")
        assert done.returncode == 0
        assert "Example" in done.stdout, command


def test_events_are_imported_from_standard_input_and_counted_once(home: Path) -> None:
    event = {
        "schema": "interaction/1",
        "event_id": "e1",
        "device_id": "d1",
        "ts": "2026-01-01T00:00:00Z",
        "adapter": {"skill": "functions"},
        "consent": {"training": True, "policy": "2026-01"},
        "messages": [{"role": "user", "content": "hi"}],
    }
    lines = json.dumps(event) + "\n" + json.dumps({**event, "consent": None}) + "\nnot json\n"
    (first,) = json.loads(run(home, "data", "import", "-", "--json", stdin=lines).stdout)
    assert (first["new"], first["duplicates"], sum(first["quarantined"].values())) == (1, 0, 2)
    (again,) = json.loads(run(home, "data", "import", "-", "--json", stdin=json.dumps(event)).stdout)
    assert (again["new"], again["duplicates"]) == (0, 1)
    assert json.loads(run(home, "data", "inspect", "--json").stdout)["events"] == 1


def test_new_writes_a_recipe_that_works_where_it_is_told_to(home: Path, tmp_path: Path) -> None:
    examples = tmp_path / "mine.jsonl"
    examples.write_text("".join(f'{{"input": "say {n}", "output": "{n % 2}"}}\n' for n in range(20)), encoding="utf-8")
    arguments = ["new", "mine", "--task", "intent", "--examples", str(examples), "--folder", str(tmp_path / "own")]
    done = run(home, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"pocketloop retrain {tmp_path / 'own' / 'mine.yaml'}" in done.stdout
    assert "ok: mine (intent, 2 answers)" in run(home, "recipe", "check", str(tmp_path / "own" / "mine.yaml")).stdout
    assert run(home, *arguments).returncode == 2
