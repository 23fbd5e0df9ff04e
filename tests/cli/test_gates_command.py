"""`pocketloop gates explain` and `pocketloop evaluate plan`, as a person types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocketloop.contracts.files import write_json
from pocketloop.evaluation.evidence import write_evidence

sys.path.append(str(Path(__file__).resolve().parents[1] / "evaluation"))
from evaluation_samples import sample_evidence

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "POCKETLOOP_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run([POCKETLOOP, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    evidence = sample_evidence(400)
    decision = evidence.decision()
    write_json(folder / "gates.json", decision.model_copy(update={"evidence": write_evidence(folder, evidence)}))
    return folder


def test_a_verdict_is_explained_gate_by_gate(home: Path, bundle: Path) -> None:
    done = run(home, "gates", "explain", str(bundle))
    assert done.returncode == 0, done.stderr
    for said in ["discordant", "exact McNemar", "one-sided 95% bounds", "would change", "locale=de-DE", "gates.2"]:
        assert said in done.stdout
    assert "every gate is what was recorded" in done.stdout
    machine = json.loads(run(home, "gates", "explain", str(bundle), "--json").stdout)
    assert machine["stands"] and machine["recorded"]["gates"] == machine["recomputed"]["gates"]


def test_a_touched_outcome_gives_a_status_that_scripts_see(home: Path, bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "touched")
    path = tmp_path / "touched" / "outcomes" / "heldout.adapter.jsonl"
    path.write_text(path.read_text().replace('"function_exact":0.0', '"function_exact":1.0', 5))
    done = run(home, "gates", "explain", str(tmp_path / "touched"))
    assert done.returncode == 3
    assert "does not stand" in done.stdout
    assert done.stderr.startswith("error: ") and "heldout.adapter.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_says_how_many_items_a_margin_needs(home: Path) -> None:
    plan = json.loads(run(home, "evaluate", "plan", "functions", "--margin", "0.02", "--json").stdout)
    (gate,) = [gate for gate in plan if "below champion" in gate["gate"]]
    assert (gate["key"], gate["source"]) == ("gates.2", "assumed: nothing was compared yet")
    assert 1_400 < gate["needed"] < 1_800
    shown = run(home, "evaluate", "plan", "functions")
    assert shown.returncode == 0 and "function_exact above base" in shown.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "gates.0.metric=function_nmae",
            "`gates.0.metric`: task function_call has no metric 'function_nmae'; did you mean",
        ),
        ("gates.1.margin=0.02", "`margin` is from another model: say `noninferior_to: champion`"),
        ("gates.2.margin=0", "`margin` must be above 0"),
        ("gates.2.noninferior_to=yesterday", "gates.2.noninferior_to"),
        ("gates.2.metric=argument_recall", "is of a whole set and not of each item"),
    ],
)
def test_a_gate_that_cannot_be_judged_is_named_with_file_and_key(home: Path, change: str, said: str) -> None:
    done = run(home, "recipe", "check", "functions", "--set", change)
    assert done.returncode == 2, done.stderr
    assert "configs/adapters/functions.yaml" in done.stderr
    assert said in done.stderr
