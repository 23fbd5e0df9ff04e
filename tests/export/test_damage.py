"""Files that load and are wrong: each kind of damage must fail the parity gate."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tinymodels import CHATML_TEMPLATE, CORPUS, save_tiny_adapter, save_tiny_model

from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.contracts.recipe import BaseConfig, ExportConfig, ParityConfig
from pocketloop.contracts.reports import ParityReport
from pocketloop.export import gguf_files, gguf_tensors
from pocketloop.export.adapter import export_adapter
from pocketloop.export.base import PreparedBase, open_base, prepare_base
from pocketloop.export.parity import Comparison, parity
from pocketloop.models.llama_context import LlamaContext
from pocketloop.tasks.tasks import TaskSpec

TASK = TaskSpec("chat", None)
THRESHOLDS = ParityConfig(min_top1=0.8, max_kl=0.2, max_perplexity=1.3)
"""Random weights suffer more from 8 bits than trained ones; the unquantized files are held to the usual bounds."""


class Export(NamedTuple):
    config: BaseConfig
    base: PreparedBase
    trained: Path
    adapter: Path


def export(root: Path, architecture: Any, name: str = "bases") -> Export:
    model = root / "model"
    if not model.is_dir():
        save_tiny_model(model, architecture)
        save_tiny_adapter(model, root / "trained")
    config = BaseConfig(base="small", source=str(model), architecture=architecture, context=128)
    base = prepare_base(config, "Q8_0", root / name, threads=1)
    made = export_adapter(root / "trained", base, root / f"out-{name}", ExportConfig(), TASK)
    return Export(config, base, root / "trained", made.path)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(tmp_path_factory.mktemp("gemma"), "gemma3")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(tmp_path_factory.mktemp("llama"), "llama")


def copied(sound: Export, folder: Path) -> Export:
    """The same files elsewhere, to be damaged."""
    shutil.copytree(sound.base.folder, folder / "base")
    shutil.copytree(sound.adapter.parent, folder / "out")
    return sound._replace(base=open_base(folder / "base"), adapter=folder / "out" / sound.adapter.name)


def judged(found: Export) -> ParityReport:
    return parity(found.config, found.trained, found.base, found.adapter, CORPUS[:3], THRESHOLDS, threads=1)


def vouch(found: Export) -> None:
    """Record the damaged files' digests as if they had been written so: behaviour alone must tell."""
    manifest = found.base.manifest
    files = {name: sha256_file(found.base.folder / name) for name in manifest.files}
    write_json(found.base.folder / "manifest.json", manifest.model_copy(update={"files": files}))
    gguf_files.write_record(found.adapter, [], 0)


def edit(path: Path, change: Callable[[str, Any], None]) -> None:
    """Change the tensors of a GGUF file where they lie."""
    from gguf import GGUFReader

    reader = GGUFReader(path, "r+")
    for tensor in reader.tensors:
        change(tensor.name, tensor.data)
    reader.data.flush()


def test_sound_files_pass(gemma: Export, llama: Export) -> None:
    for sound in (gemma, llama):
        report = judged(sound)
        assert report.passed and report.failed == []


@pytest.mark.parametrize("name", ["base.gguf", "base-f16.gguf", "adapter.gguf", "tokenizer/tokenizer.json"])
def test_a_single_flipped_bit_fails(name: str, gemma: Export, tmp_path: Path) -> None:
    broken = copied(gemma, tmp_path)
    path = broken.adapter if name == "adapter.gguf" else broken.base.folder / name
    data = bytearray(path.read_bytes())
    # The lowest bit of a late weight changes nothing that anybody would notice; a blank in the JSON nothing at all.
    data[-9] ^= 1 if path.suffix == ".gguf" else 0
    path.write_bytes(data if path.suffix == ".gguf" else data + b"\n")
    report = judged(broken)
    assert not report.passed and len(report.failed) == 1
    assert ("adapter.gguf is not the file" if name == "adapter.gguf" else "files of the base small") in report.failed[0]


@pytest.mark.parametrize("which", ["base", "adapter"])
def test_flipped_bytes_show_in_what_is_said_even_where_digests_vouch_for_them(
    which: str, gemma: Export, tmp_path: Path
) -> None:
    broken = copied(gemma, tmp_path)
    rng = np.random.default_rng(0)

    def flip(name: str, data: Any) -> None:
        if name.startswith("blk.2.ffn_down"):
            raw = data.view(np.uint8).reshape(-1)
            raw[rng.integers(0, raw.size, 40)] ^= 0x38

    edit(broken.base.unquantized if which == "base" else broken.adapter, flip)
    vouch(broken)
    report = judged(broken)
    assert report.failed == [] and not report.passed and not report.results[0].passed


def test_a_norm_without_its_offset_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma's norms are stored as distances from one: the file must hold them with one added."""
    convert = gguf_tensors._converted

    def wrong(piece: Any, target: str, architecture: str, dtype: Any) -> Any:
        return convert(piece, target, "llama" if target.endswith("q_norm.weight") else architecture, dtype)

    monkeypatch.setattr(gguf_tensors, "_converted", wrong)
    report = judged(export(tmp_path, "gemma3"))
    assert report.failed == [] and not report.passed and not report.results[0].passed


def test_queries_and_keys_that_were_not_reordered_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_tensors, "permute_heads", lambda matrix, heads: matrix)
    report = judged(export(tmp_path, "llama"))
    assert report.failed == [] and not report.passed and not report.results[0].passed


def test_an_adapter_whose_rows_were_not_reordered_fails(
    llama: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketloop.export import gguf_lora

    monkeypatch.setattr(gguf_lora, "permute_heads", lambda matrix, heads: matrix)
    made = export_adapter(llama.trained, llama.base, tmp_path / "out", ExportConfig(), TASK)
    report = judged(llama._replace(adapter=made.path))
    assert report.failed == [] and not report.passed and not report.results[0].passed


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_an_adapter_of_another_scale_fails(factor: float, gemma: Export, tmp_path: Path) -> None:
    broken = copied(gemma, tmp_path)
    from gguf import GGUFReader

    reader = GGUFReader(broken.adapter, "r+")
    reader.fields["adapter.lora.alpha"].parts[-1][0] *= factor
    reader.data.flush()
    vouch(broken)
    report = judged(broken)
    assert report.failed == [] and not report.passed and not report.results[0].passed


def test_text_that_became_less_likely_fails_whatever_else_is_allowed() -> None:
    """Nothing but the tokens that were really said became less likely: one in ten thousand, in a flat distribution."""
    import torch

    expected = torch.zeros(4, 10_000)
    found = expected.clone()
    found[:, 7] -= 3
    compared = Comparison("file")
    compared.add([7, 7, 7, 7], expected, found, True)
    assert compared.result(0, 0.01, math.inf).passed
    result = compared.result(0, 0.01, 1.1)
    assert not result.passed and result.kl < 1e-3
    assert result.expected_perplexity == pytest.approx(10_000)
    assert result.perplexity == pytest.approx(10_000 * math.exp(3), rel=1e-3)


def test_another_chat_template_fails(gemma: Export, tmp_path: Path) -> None:
    """The tokens and the weights are right, but an app that takes the file's own template asks otherwise."""
    template = tmp_path / "template.jinja"
    template.write_text(CHATML_TEMPLATE, encoding="utf-8")
    config = gemma.config.model_copy(update={"chat_template": str(template)})
    base = prepare_base(config, "Q8_0", tmp_path / "bases", threads=1)
    made = export_adapter(gemma.trained, base, tmp_path / "out", ExportConfig(), TASK)
    report = judged(gemma._replace(base=base, adapter=made.path))
    assert all(result.passed for result in report.results) and not report.passed
    assert report.failed == ["the chat template in the file renders otherwise than transformers' own"]


def test_keys_and_values_that_outlive_a_swap_fail(gemma: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is not cleared when the adapter changes, and prompts that begin alike are not computed again."""
    from pocketloop.models.probes import load_probes

    prompt = max((probe.prompt_ids for probe in load_probes(gemma.base.folder)), key=len)
    assert gguf_files.swaps_cleanly(gemma.base, gemma.adapter, prompt, 1)
    with monkeypatch.context() as patched:
        patched.setattr(LlamaContext, "clear", lambda self: None)
        assert not gguf_files.swaps_cleanly(gemma.base, gemma.adapter, prompt, 1)

    apply = LlamaContext.apply

    def stale(self: LlamaContext, adapter: Any) -> None:
        prompts, clear = self._prompts, self.clear
        self.clear = lambda: None  # type: ignore[method-assign]
        apply(self, adapter)
        self.clear = clear  # type: ignore[method-assign]
        self._prompts = prompts

    monkeypatch.setattr(LlamaContext, "apply", stale)
    # as of a runtime that goes on with a conversation: nothing is cleared for answers
    monkeypatch.setattr(LlamaContext, "begin", lambda self, beginning: None)
    report = judged(gemma)
    assert not report.passed
    assert report.failed == ["after a swap, answers depend on the adapter that was used before"]


def test_sound_exports_are_the_same_bytes_on_every_run(gemma: Export, tmp_path: Path) -> None:
    again = export(tmp_path, "gemma3")
    assert again.base.manifest == gemma.base.manifest
    for path in again.adapter.parent.iterdir():
        assert path.read_bytes() == (gemma.adapter.parent / path.name).read_bytes()
