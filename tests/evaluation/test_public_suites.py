"""Public suites from files on disk."""

import json
from pathlib import Path

import pytest

from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.home import project_root
from pocketloop.evaluation.public_suites import run_suite, suite_file
from pocketloop.models.lm_eval_env import lm_eval_environment

TASK = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: mine.jsonl}}
"""
BASE = project_root() / "configs" / "bases" / "tiny"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TASK.replace("json\n", "super_glue\n"), "`dataset_path` is 'super_glue'"),
        (TASK.replace("data_files", "files"), "`dataset_kwargs.data_files` is missing"),
        (TASK.replace("mine.jsonl", "yours.jsonl"), r"data_files.test`: .*yours.jsonl does not exist"),
        (TASK.replace("task: mine", "group: mine"), "key `task` is missing"),
        (TASK + "doc_to_text: !function utils.text\n", r"task.yaml:5: it runs code of its own"),
        ("task: [", r"task.yaml:1: not valid YAML"),
    ],
)
def test_a_task_file_that_is_not_data_on_disk_is_refused_with_the_key(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "task.yaml").write_text(text)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=why):
        run_suite(tmp_path / "task.yaml", BASE, tmp_path / "out")


def test_a_suite_that_does_not_exist_names_the_nearest_and_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'everyday'"):
        suite_file("everday")
    with pytest.raises(ModelError, match="holds no base"):
        run_suite(suite_file("everyday"), tmp_path, tmp_path / "out")


def test_every_shipped_item_has_one_right_answer_among_its_choices() -> None:
    rows = [json.loads(line) for line in (project_root() / "configs/suites/everyday.jsonl").read_text().splitlines()]
    assert len(rows) == 150
    assert all(len(set(row["choices"])) == len(row["choices"]) > row["answer"] >= 0 for row in rows)


@pytest.mark.slow
def test_the_embedded_base_runs_a_suite_with_every_item_on_record(tmp_path: Path) -> None:
    try:
        environment = lm_eval_environment()
    except ModelError as error:
        pytest.skip(f"lm-eval cannot be installed here: {str(error)[:200]}")
    out = tmp_path / "out"
    found = run_suite(suite_file("everyday"), BASE, out, limit=12, environment=environment)
    assert (found.suite, found.n, found.metrics["acc"].n) == ("everyday", 12, 12)
    assert len(Path(found.samples).read_text().splitlines()) == 12
    again = run_suite(suite_file("everyday"), BASE, out, limit=6, environment=environment)
    assert again.n == 6  # what an earlier run left is not read again
