import subprocess
import sys
from pathlib import Path

import pytest

from steps import stage


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    "name", ["pocketloop/data/a.py", "pocketloop/privacy/ner/model/weights", "configs/catalogues/c.json", "steps/a.py"]
)
def test_what_cached_stages_run_or_read_makes_them_stale(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "project_root", lambda: tmp_path)
    write(tmp_path, "pocketloop/data/b.py", "x = 1")
    write(tmp_path, name, "one")
    before = stage.library_digest.__wrapped__()
    write(tmp_path, name, "two")
    assert stage.library_digest.__wrapped__() != before


@pytest.mark.parametrize(
    "name", ["pocketloop/cli/a.py", "configs/adapters/a.yaml", "pocketloop/data/__pycache__/a.pyc"]
)
def test_what_they_never_see_leaves_them_valid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "project_root", lambda: tmp_path)
    write(tmp_path, "pocketloop/data/b.py", "x = 1")
    before = stage.library_digest.__wrapped__()
    write(tmp_path, name, "anything")
    assert stage.library_digest.__wrapped__() == before


def test_a_stage_says_what_it_cost_in_time_and_in_processor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, object] = {}
    monkeypatch.setenv("POCKETLOOP_HOME", str(tmp_path))
    monkeypatch.setattr(stage, "log_metadata", said.update)
    with stage.stage("busy") as running:
        burn = "sum(range(3_000_000))"
        subprocess.run([sys.executable, "-c", burn], check=True)
        running.done("burnt", rows=1)
    assert said["rows"] == 1
    assert isinstance(said["cpu_seconds"], float) and said["cpu_seconds"] > 0
    assert isinstance(said["seconds"], float) and said["seconds"] > 0
