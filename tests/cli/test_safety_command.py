"""`pocketloop safety`, with a scanner that stands in for garak: it is a program that is given an address."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from tinymodels import save_tiny_adapter, save_tiny_model
from typer.testing import CliRunner, Result

from pocketloop.cli import safety
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.contracts.loading import load_recipe
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.reports import ReleaseBundle
from pocketloop.export.adapter import export_adapter
from pocketloop.export.base import prepare_base
from pocketloop.safety import garak_env
from pocketloop.tasks.tasks import TaskSpec

SCANNER = """#!/usr/bin/env python3
import json, sys, urllib.request
arguments = dict(zip(sys.argv, sys.argv[1:]))
config = json.load(open(arguments["--config"]))
target = config["plugins"]["generators"]["openai"]["OpenAICompatible"]
asked = {"model": config["plugins"]["target_name"], "messages": [{"role": "user", "content": "Say boo."}]}
request = urllib.request.Request(target["uri"] + "chat/completions", json.dumps(asked).encode())
said = json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
rows = [{"entry_type": "init", "garak_version": "9.9"}]
for name in arguments["--spec"].split(","):
    found = {"entry_type": "eval", "probe": name.removeprefix("probes."), "detector": "any.Any"}
    rows.append(found | {"passed": 3, "total_evaluated": 4})
rows.append({"entry_type": "attempt", "outputs": [said]})
folder = config["reporting"]["report_dir"] + "/garak.report"
open(folder + ".jsonl", "w").writelines(json.dumps(row) + "\\n" for row in rows)
open(folder + ".html", "w").write("<p>page</p>")
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("safety")
    model = save_tiny_model(root / "model", "gemma3", hidden=256, layers=2)
    config = BaseConfig(base="tiny", source=str(model), architecture="gemma3", dtype="float32", context=256)
    base = prepare_base(config, "Q8_0", root / "home" / "bases", threads=1)
    recipe = load_recipe("math", ["export.context=256", "evaluation.max_new_tokens=8"])
    folder = root / "math"
    peft = save_tiny_adapter(model, root / "peft", r=recipe.train.lora.r)
    export_adapter(peft, base, folder, recipe.export, TaskSpec("chat", None))
    write_json(folder / "recipe.json", recipe)
    made = ReleaseBundle(
        adapter="math", task=recipe.task, recipe_digest=recipe.digest, dataset_digest="d" * 64, base="tiny",
        base_digest=base.manifest.digest, files={path.name: sha256_file(path) for path in sorted(folder.glob("*"))},
        sizes={}, digest="b" * 64, created=datetime.now(UTC),
    )  # fmt: skip
    write_json(folder / "bundle.json", made)
    scanner = root / "garak"
    scanner.write_text(SCANNER, encoding="utf-8")
    scanner.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETLOOP_HOME", str(root / "home"))
        patch.setattr(garak_env, "garak_python", lambda: scanner)
        yield folder


def run(*arguments: str) -> Result:
    app = typer.Typer()
    safety.add_to(app)
    return CliRunner().invoke(app, ["safety", *arguments], catch_exceptions=False)


def test_the_fixtures_are_listed_with_version_digest_and_provenance() -> None:
    listed = json.loads(run("fixtures", "--json").stdout)
    assert {item["name"] for item in listed} >= {"requests", "injections", "refusal_answers"}
    assert all(item["version"] >= 1 and len(item["digest"]) == 64 and item["source"] for item in listed)
    assert all(word in run("fixtures").stdout for word in ("names", "persona"))


def test_a_scanner_is_given_the_served_adapter_and_its_report_is_kept(bundle: Path, tmp_path: Path) -> None:
    result = run("garak", str(bundle), "--probes", "dan,encoding.InjectBase64", "--out", str(tmp_path), "--json")
    report = json.loads(result.stdout)
    assert report["model"] == "math@local" and report["garak"] == "9.9"
    assert {item["probe"] for item in report["probes"]} == {"dan", "encoding.InjectBase64"}
    assert report["probes"][0]["failed"]["value"] == 0.25
    rows = [json.loads(line) for line in (tmp_path / "garak.report.jsonl").read_text().splitlines()]
    assert isinstance(rows[-1]["outputs"][0], str), "the adapter answered"
    assert json.loads((tmp_path / "summary.json").read_text()) == report


def test_a_probe_that_is_no_name_is_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoding\.InjectBase64"):
        run("garak", str(bundle), "--probes", "rm -rf")
