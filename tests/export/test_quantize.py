"""llama.cpp's quantizer, and what it does not say aloud."""

import resource
from pathlib import Path

import pytest
from tinymodels import save_tiny_model

from pocketloop.contracts.errors import ExportError
from pocketloop.export.gguf_model import convert_model
from pocketloop.export.quantize import quantize


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows all divide by 256."""
    folder = save_tiny_model(tmp_path_factory.mktemp("wide"), "gemma3", hidden=256, layers=2, head_dim=64,
                             query_pre_attn_scalar=64)  # fmt: skip
    convert_model(folder, folder / "f16.gguf")
    return folder / "f16.gguf"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows do not."""
    folder = save_tiny_model(tmp_path_factory.mktemp("narrow"), "qwen3", hidden=96)
    convert_model(folder, folder / "f16.gguf")
    return folder / "f16.gguf"


def test_rows_that_fit_get_the_asked_type_and_the_same_bytes_every_time(wide: Path, tmp_path: Path) -> None:
    result = quantize(wide, tmp_path / "one.gguf", "Q4_K_M", threads=1)
    quantize(wide, tmp_path / "two.gguf", "Q4_K_M", threads=2)
    assert result.fallback_tensors == 0
    assert result.size == (tmp_path / "one.gguf").stat().st_size < wide.stat().st_size / 2
    assert 4.5 < result.bits_per_weight < 6
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_rows_that_do_not_fit_are_counted(narrow: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    result = quantize(narrow, tmp_path / "out.gguf", "Q4_K_M", threads=1)
    types = [tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "out.gguf").tensors]
    assert result.fallback_tensors == sum(kind not in ("F32", "Q4_K", "Q5_K", "Q6_K") for kind in types) > 0
    assert quantize(narrow, tmp_path / "q8.gguf", "Q8_0", threads=1).fallback_tensors == 0


def test_a_damaged_source_leaves_no_file(wide: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(wide.read_bytes()[: wide.stat().st_size // 2])
    with pytest.raises(ExportError, match="could not quantize"):
        quantize(broken, tmp_path / "out.gguf", threads=1)
    broken.write_bytes(b"GGUF and then nothing of the kind")
    with pytest.raises(ExportError, match="could not quantize"):
        quantize(broken, tmp_path / "out.gguf", threads=1)
    with pytest.raises(ExportError, match="no such file"):
        quantize(tmp_path / "absent.gguf", tmp_path / "out.gguf", threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]


def test_a_full_disk_leaves_no_file(wide: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises((ExportError, OSError)):
            quantize(wide, tmp_path / "out.gguf", threads=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
