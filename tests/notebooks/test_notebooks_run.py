"""The notebooks as a reader meets them: pairs in step, cells that run, outputs that tell nobody's secrets."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipelines.by_hand import DEMO_DAY, FIRST, THEN
from pocketloop.data.demo import demo_events

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.py"))


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks_runner", ROOT / "scripts" / "notebooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(name: str) -> str:
    """Everything that the kept outputs of a notebook show."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return json.dumps([cell.get("outputs", []) for cell in cells], ensure_ascii=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_holds_the_same_cells(runner: ModuleType, name: str) -> None:
    assert runner.out_of_step(ROOT / "notebooks" / f"{name}.py") == ""


def test_a_pair_that_was_changed_on_one_side_is_out_of_step(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".py", ".ipynb"):
        text = (ROOT / "notebooks" / NAMES[0]).with_suffix(suffix).read_text(encoding="utf-8")
        (tmp_path / NAMES[0]).with_suffix(suffix).write_text(text, encoding="utf-8")
    changed = (tmp_path / NAMES[0]).with_suffix(".py")
    changed.write_text(changed.read_text(encoding="utf-8") + "\n# %%\n1 + 1\n", encoding="utf-8")
    assert "differ from cell" in runner.out_of_step(changed)
    changed.with_suffix(".ipynb").unlink()
    assert "is missing" in runner.out_of_step(changed)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_small_and_name_no_place_of_a_machine(runner: ModuleType, name: str) -> None:
    text = shown(name)
    assert 0 < len(text) < runner.MOST_BYTES
    assert not re.search(r"/(home|root|work|tmp|usr|Users|var)/|[A-Z]:\\\\", text)


@pytest.mark.slow
def test_only_the_first_notebook_quotes_a_person_and_only_one_event() -> None:
    events = [*demo_events(FIRST + THEN, 1, now=DEMO_DAY)]
    said = {turn["content"] for event in events for turn in event["messages"] if turn["role"] == "user"}
    said = {json.dumps(text, ensure_ascii=False)[1:-1] for text in said if len(text) > 30}
    for name in NAMES:
        text = shown(name)
        quoted = [sentence for sentence in said if sentence in text]
        assert len(quoted) <= (2 if name == NAMES[0] else 0), name


def test_clean_outputs_lose_times_paths_and_standard_error(runner: ModuleType) -> None:
    import nbformat.v4 as v4

    outputs = [
        v4.new_output("stream", name="stderr", text="loading /somewhere"),
        v4.new_output("stream", name="stdout", text="written to /somewhere/x"),
        v4.new_output("execute_result", data={"text/plain": "<T at 0x7f00aa11bb22>"}, execution_count=7),
    ]
    cell = v4.new_code_cell("1", outputs=outputs, execution_count=7, metadata={"execution": {"started": "now"}})
    notebook = v4.new_notebook(
        cells=[cell], metadata={"widgets": {}, "kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    runner.clean(notebook, {"/somewhere": "$HERE"})
    assert [output.get("text") or output.data["text/plain"] for output in cell.outputs] == [
        "written to $HERE/x",
        "<T at 0x…>",
    ]
    assert (cell.execution_count, cell.outputs[1].execution_count) == (1, 1)
    assert "execution" not in cell.metadata
    assert set(notebook.metadata) == {"kernelspec"}


def test_outputs_that_grew_too_large_are_refused(runner: ModuleType) -> None:
    import nbformat.v4 as v4

    large = v4.new_output("stream", name="stdout", text="x" * (runner.MOST_BYTES + 1))
    with pytest.raises(SystemExit, match="show less"):
        runner.clean(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=[large])]), {})


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_notebook_runs_from_its_first_cell_to_its_last() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "notebooks.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
