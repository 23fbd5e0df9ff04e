"""A version's `.pte` files: lowered, proven and measured beside the GGUF ones."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pocketloop.contracts.examples import IntentRow, example_from_row
from pocketloop.contracts.exports import KeptScore
from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.contracts.loading import load_device_classes, load_recipe
from pocketloop.contracts.reports import ReleaseBundle
from pocketloop.evaluation.suite import kept_score
from pocketloop.export.adapter import export_adapter
from pocketloop.export.base import prepare_base
from pocketloop.export.version import Source, export_version, make_gguf, make_pte, read_source
from pocketloop.models.bases import load_with_adapter
from pocketloop.models.generators import Generator, TransformersGenerator
from pocketloop.models.probes import load_probes
from pocketloop.tasks.tasks import TaskSpec
from tests.pte_samples import CACHE, QUANTIZED, adapters, environment, held_out, windowed


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("version")
    config = windowed(root / "model").model_copy(update={"context": QUANTIZED.context})
    peft, _ = adapters(Path(config.source), root, alpha=32)
    base = prepare_base(config, "Q8_0", root / "bases", threads=1)
    # Random weights suffer from 4 bits more than trained ones: the bounds of parity are not what is tested here.
    recipe = load_recipe(
        "math",
        [
            f"export.context={QUANTIZED.context}", "evaluation.max_new_tokens=16",
            "export.pte={lowering: xnnpack-8da4w, form: shared}",
            "export.parity={min_top1_pte: 0.5, max_kl_pte: 1, max_perplexity_pte: 3}",
        ],
    )  # fmt: skip
    folder = root / "bundle"
    export_adapter(peft, base, folder, recipe.export, TaskSpec("chat", None))
    shutil.copytree(peft, folder / "adapter")
    settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    # The same bytes wherever the test runs, or the adapter would be lowered anew each time.
    write_json(folder / "adapter" / "adapter_config.json", settings | {"base_model_name_or_path": "tiny"})
    write_json(folder / "recipe.json", recipe)
    files = {path.name: sha256_file(path) for path in sorted(folder.glob("*")) if path.is_file()}
    bundle = ReleaseBundle(
        adapter="math", task="chat", recipe_digest=recipe.digest, dataset_digest="d" * 64, base="tiny",
        base_digest=base.manifest.digest, files=files, sizes={}, digest="b" * 64, created=datetime.now(UTC),
    )  # fmt: skip
    write_json(folder / "bundle.json", bundle)
    return read_source(folder, config, base)


@pytest.mark.slow
def test_both_formats_of_a_version_stand_in_one_report(source: Source, tmp_path: Path) -> None:
    asked = [example_from_row(IntentRow(input=f"{n} minutes", output="timer"), source="test") for n in range(20)]

    def score(program: Generator) -> KeptScore:
        trained = TransformersGenerator(*load_with_adapter(source.config, source.folder / "adapter", "float32"))
        return kept_score(program, trained, asked, TaskSpec("chat", None), 4, margin=0.15)

    def lowered(given: Source, out: Path) -> object:
        return make_pte(given, out, held_out(), score, cache=CACHE, environment=environment())

    classes = load_device_classes()
    makers = {"gguf": make_gguf, "pte": lowered}
    report = export_version(source, "1", tmp_path, ["gguf", "pte"], classes, makers)  # type: ignore[arg-type]
    files = {file.path: file for file in report.files}
    assert set(files) == {"gguf/base.gguf", "gguf/adapter.gguf", "pte/base/base.ptd", "pte/adapter/model.pte"}
    for path, file in files.items():
        assert sha256_file(tmp_path / path) == file.digest and (tmp_path / path).stat().st_size == file.bytes
    parity = files["pte/adapter/model.pte"].parity
    assert parity and parity.passed and parity.results[0].token_ids_equal
    kept = files["pte/adapter/model.pte"].score
    assert kept and (kept.n, kept.verdict) == (20, "pass")
    gguf, pte = report.budget.measures
    assert (gguf.format, pte.format) == ("gguf", "pte") and gguf.context == pte.context == 160
    assert pte.base_bytes == files["pte/base/base.ptd"].bytes
    assert pte.adapter_bytes == files["pte/adapter/model.pte"].bytes
    assert 0 < pte.mapped_bytes <= pte.resident_bytes < 200e6  # what the runtime's libraries take is not counted
    assert pte.tokens_per_second and pte.first_token_ms and pte.swap_ms
    assert {p.format for p in report.budget.projections} == {"gguf", "pte"} and report.passed
    recorded = load_probes(tmp_path / "pte")
    assert recorded and all(probe.base_ids and probe.sure and probe.gain is not None for probe in recorded)
    assert any(probe.base_ids != probe.answer_ids for probe in recorded)
    page = (tmp_path / "export.html").read_text()
    assert "xnnpack 8da4w/8w" in page and "on 20 held-out" in page
