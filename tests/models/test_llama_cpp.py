"""llama.cpp as a Generator: batched, swappable, and never on the wrong base."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tinymodels import CORPUS, save_tiny_adapter, save_tiny_model

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import sha256_file
from pocketloop.export.gguf_lora import convert_lora
from pocketloop.export.gguf_model import convert_model
from pocketloop.models.llama_cpp import LlamaCppGenerator


class Files(NamedTuple):
    model: Path
    base: Path
    adapter: Path
    other: Path
    foreign: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A base, two adapters for it, and one that names another base."""
    root = tmp_path_factory.mktemp("llama")
    model = save_tiny_model(root / "model", "gemma3")
    base = root / "base.gguf"
    convert_model(model, base, "F32")
    for seed, name in enumerate(("adapter", "other")):
        folder = save_tiny_adapter(model, root / name, seed=seed)
        convert_lora(folder, model, sha256_file(base), root / f"{name}.gguf")
    convert_lora(root / "adapter", model, "f" * 64, root / "foreign.gguf")
    return Files(model, base, root / "adapter.gguf", root / "other.gguf", root / "foreign.gguf")


@pytest.fixture
def generator(files: Files) -> Iterator[LlamaCppGenerator]:
    with LlamaCppGenerator(files.base, files.model, threads=1, parallel=4) as made:
        yield made


def conversations(count: int) -> list[list[dict[str, Any]]]:
    """Prompts of very different lengths."""
    return [[{"role": "user", "content": " ".join(CORPUS[: 1 + i % 5]) + str(i)}] for i in range(count)]


def test_answers_are_the_same_in_a_batch_and_alone(files: Files) -> None:
    asked = conversations(11)
    with (
        LlamaCppGenerator(files.base, files.model, threads=1, parallel=4, exact=True) as batched,
        LlamaCppGenerator(files.base, files.model, threads=1, parallel=1, exact=True) as alone,
    ):
        together = batched.generate(asked, 20)
        assert together == [alone.generate([one], 20)[0] for one in asked]
        assert together == batched.generate(asked, 20)
    assert len({answer.text for answer in together}) > 5


def test_a_stop_token_frees_its_slot_for_the_next_prompt(files: Files, generator: LlamaCppGenerator) -> None:
    """Whatever token comes third in some answers is declared a stop: answers then end at different lengths."""
    asked = conversations(13)
    ids = [generator.tokenizer(one[0]["content"])["input_ids"] for one in asked]
    whole = generator.generate_ids(ids, 12)
    stops = {answer[2] for answer in whole[:4]}
    generator.stops |= stops
    for short, long in zip(generator.generate_ids(ids, 12), whole, strict=True):
        end = next((i + 1 for i, token in enumerate(long) if token in stops), len(long))
        assert short == long[:end]
    answers = generator.generate(asked, 12)
    assert {answer.finished for answer in answers} == {True, False}
    assert all(answer.tokens == 12 for answer in answers if not answer.finished)


def test_what_prompts_begin_with_alike_is_computed_once(files: Files) -> None:
    common = list(range(270, 400))
    prompts = [[*common, 300 + i, 310 - i] for i in range(20)] + [common, common, [*common, 300, 310]]
    with (
        LlamaCppGenerator(files.base, files.model, threads=1, parallel=4, exact=True) as shared,
        LlamaCppGenerator(files.base, files.model, threads=1, parallel=1, exact=True) as fresh,
    ):
        expected = [fresh.generate_ids([prompt], 8)[0] for prompt in prompts]
        assert shared.generate_ids(prompts, 8) == expected
        assert shared._contexts["generate"].computed < len(common) + 12 * len(prompts)
        other = [2, 300]  # now nothing is common to all, but each slot still keeps what two prompts share
        assert shared.generate_ids([*prompts, other], 8) == [*expected, fresh.generate_ids([other], 8)[0]]


def test_what_prompts_begin_with_alike_is_kept_for_the_next_portion_of_them(files: Files) -> None:
    common = list(range(270, 400))
    first, second = ([[*common, 300 + i, 310 - i] for i in portion] for portion in (range(8), range(8, 20)))
    with (
        LlamaCppGenerator(files.base, files.model, threads=1, parallel=4, exact=True) as shared,
        LlamaCppGenerator(files.base, files.model, threads=1, parallel=1, exact=True) as fresh,
    ):
        expected = [fresh.generate_ids([prompt], 8)[0] for prompt in [*first, *second]]
        assert shared.generate_ids(first, 8) == expected[:8]
        before = shared._contexts["generate"].computed
        assert shared.generate_ids(second, 8) == expected[8:]
        assert shared._contexts["generate"].computed - before < len(common)
        shared.set_adapter(files.adapter)  # its keys and values are others
        fresh.set_adapter(files.adapter)
        assert shared.generate_ids(first, 8) == [fresh.generate_ids([prompt], 8)[0] for prompt in first]


def test_a_prompt_longer_than_the_batch_is_fed_in_parts(files: Files) -> None:
    with LlamaCppGenerator(files.base, files.model, threads=1, parallel=3, context=4096) as generator:
        ids = generator.tokenizer(" ".join(CORPUS * 4))["input_ids"]
        prompts = [ids[:2100], ids[:5], ids[:700]]
        answers = generator.generate_ids(prompts, 4)
        for prompt, answer in zip(prompts, answers, strict=True):
            assert answer == generator.logits([prompt + answer[:-1]])[0][-4:].argmax(axis=1).tolist()


def test_no_prompts_give_no_answers(generator: LlamaCppGenerator) -> None:
    assert generator.generate([], 5) == []
    assert generator.generate_ids([[2, 5]], 0) == [[]]


def test_a_prompt_that_does_not_fit_is_named(files: Files) -> None:
    with LlamaCppGenerator(files.base, files.model, threads=1, context=64) as generator:
        with pytest.raises(ModelError, match="prompt 1 has 64 tokens; the context holds 64"):
            generator.generate_ids([[2], [2] * 64], 5)
        assert len(generator.generate_ids([[2] * 60], 20)[0]) == 5  # the context ends the answer


def test_swapping_adapters_changes_the_answers_and_back_exactly(files: Files, generator: LlamaCppGenerator) -> None:
    ids = generator.tokenizer(CORPUS[0])["input_ids"]
    plain = generator.logits([ids])[0]
    said = generator.generate(conversations(5), 10)
    seen = []
    for adapter in (files.adapter, files.other, files.adapter):
        generator.set_adapter(adapter)
        seen.append(generator.logits([ids])[0])
        assert np.abs(seen[-1] - plain).max() > 1
    np.testing.assert_array_equal(seen[0], seen[2])
    assert np.abs(seen[0] - seen[1]).max() > 1
    generator.set_adapter(None)
    np.testing.assert_array_equal(generator.logits([ids])[0], plain)
    assert generator.generate(conversations(5), 10) == said


def test_an_adapter_of_another_base_is_refused_and_the_old_one_stays(files: Files) -> None:
    with pytest.raises(ModelError, match=r"foreign\.gguf belongs to the base with digest ffffffffffffffff"):
        LlamaCppGenerator(files.base, files.model, files.foreign, threads=1)
    with LlamaCppGenerator(files.base, files.model, files.adapter, threads=1) as generator:
        before = generator.logits([[2, 300, 301]])[0]
        with pytest.raises(ModelError, match="another|belongs to"):
            generator.set_adapter(files.foreign)
        np.testing.assert_array_equal(generator.logits([[2, 300, 301]])[0], before)
    with LlamaCppGenerator(files.base, files.model, files.foreign, threads=1, base_digest="f" * 64) as generator:
        assert generator.logits([[2]])[0].shape == (1, generator.vocabulary)


def test_an_adapter_that_names_no_base_is_refused(files: Files, generator: LlamaCppGenerator, tmp_path: Path) -> None:
    from gguf import GGUFReader, GGUFWriter

    writer = GGUFWriter(tmp_path / "anonymous.gguf", "gemma3")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8)
    for tensor in GGUFReader(files.adapter).tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="digest none"):
        generator.set_adapter(tmp_path / "anonymous.gguf")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_broken_files_are_errors_and_not_crashes(files: Files, share: float, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    for whole in (files.base, files.adapter):
        data = whole.read_bytes()
        broken.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ModelError, match=r"broken\.gguf cannot be loaded"):
            if whole == files.base:
                LlamaCppGenerator(broken, files.model, threads=1)
            else:
                LlamaCppGenerator(files.base, files.model, broken, threads=1)


def test_an_adapter_of_another_shape_is_refused(files: Files, tmp_path: Path) -> None:
    wide = save_tiny_model(tmp_path / "wide", "gemma3", hidden=96)
    convert_lora(save_tiny_adapter(wide, tmp_path / "a"), wide, sha256_file(files.base), tmp_path / "a.gguf")
    with pytest.raises(ModelError, match="cannot be loaded as an adapter"):
        LlamaCppGenerator(files.base, files.model, tmp_path / "a.gguf", threads=1)


def test_absent_files_say_what_to_do(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="prepare_base"):
        LlamaCppGenerator(tmp_path / "absent.gguf", files.model)
    with pytest.raises(ModelError, match="no such adapter"):
        LlamaCppGenerator(files.base, files.model, tmp_path / "absent.gguf")


def test_closing_twice_is_harmless_and_use_afterwards_is_an_error(files: Files) -> None:
    generator = LlamaCppGenerator(files.base, files.model, files.adapter, threads=1)
    generator.generate(conversations(1), 2)
    generator.close()
    generator.close()
    with pytest.raises(ModelError, match="closed"):
        generator.generate(conversations(1), 2)


def test_the_library_keeps_quiet(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    with LlamaCppGenerator(files.base, files.model, files.adapter, threads=1) as generator:
        capfd.readouterr()
        generator.generate(conversations(2), 3)
        with pytest.raises(ModelError):
            generator.set_adapter(files.base)
    shown = capfd.readouterr()
    assert shown.out == "" and shown.err == ""


def test_preloaded_adapters_are_swapped_without_reading_their_files(files: Files, tmp_path: Path) -> None:
    kept = tmp_path / "kept.gguf"
    kept.write_bytes(files.adapter.read_bytes())
    ids = [[2, 300, 301, 302]]
    with LlamaCppGenerator(files.base, files.model, files.adapter, threads=1) as generator:
        expected = generator.logits(ids)[0]
        generator.set_adapter(None)
        plain = generator.logits(ids)[0]
        generator.preload([kept, files.other, kept])
        kept.unlink()
        for _ in range(3):
            generator.set_adapter(kept)
            np.testing.assert_array_equal(generator.logits(ids)[0], expected)
            generator.set_adapter(files.other)
            assert np.abs(generator.logits(ids)[0] - expected).max() > 1
        generator.unload(files.other)  # in use: the base remains
        np.testing.assert_array_equal(generator.logits(ids)[0], plain)
        generator.set_adapter(kept)
        generator.unload(files.other)
        np.testing.assert_array_equal(generator.logits(ids)[0], expected)
        generator.unload(kept)
        with pytest.raises(ModelError, match="no such adapter"):
            generator.set_adapter(kept)
        with pytest.raises(ModelError, match="belongs to"):
            generator.preload([files.adapter, files.foreign])


def test_a_closed_generator_takes_no_adapter(files: Files) -> None:
    generator = LlamaCppGenerator(files.base, files.model, threads=1)
    generator.preload([files.adapter])
    generator.close()
    for use in (files.adapter, files.other, None):
        with pytest.raises(ModelError, match="closed"):
            generator.set_adapter(use)
    with pytest.raises(ModelError, match="closed"):
        generator.preload([files.adapter])
    with pytest.raises(ModelError, match="closed"):
        generator.logits([[2]])
    generator.unload(files.adapter)


def test_an_adapter_that_gives_no_numbers_spoils_nothing_for_the_next(files: Files, tmp_path: Path) -> None:
    """Keys and values that are not numbers stay in memory when the cache is cleared, and a mask does not hide them."""
    from gguf import GGUFReader

    broken = tmp_path / "broken.gguf"
    broken.write_bytes(files.adapter.read_bytes())
    reader = GGUFReader(broken, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_v.weight.lora_b").data[:] = np.nan
    reader.data.flush()
    long, short = [list(range(270, 300))], [[2, 300, 301]]
    with LlamaCppGenerator(files.base, files.model, threads=1, parallel=2, exact=True) as generator:
        expected = generator.logits(short)[0]
        said = generator.generate_ids(short, 4)
        for _ in range(2):
            generator.set_adapter(broken)
            assert np.isnan(generator.logits(long)[0]).any()
            generator.generate_ids([*long, long[0][:-1]], 8)  # what both begin with is computed without an output
            generator.set_adapter(None)
            np.testing.assert_array_equal(generator.logits(short)[0], expected)
            assert generator.generate_ids(short, 4) == said


def resident() -> int:
    """Bytes of memory that this process holds now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process its own memory")
def test_ten_thousand_swaps_leak_nothing_and_each_is_far_cheaper_than_loading(files: Files) -> None:
    with LlamaCppGenerator(files.base, files.model, threads=1, context=2048) as generator:
        generator.preload([files.adapter, files.other])
        choices = [files.adapter, files.other, None]
        generator.generate_ids([list(range(270, 400))], 1500)  # a cache of 1,630 tokens
        for turn in range(500):
            generator.set_adapter(choices[turn % 3])
        before, swaps = resident(), []
        for turn in range(10_000):
            start = time.perf_counter()
            generator.set_adapter(choices[turn % 3])
            swaps.append(time.perf_counter() - start)
            if turn % 500 == 0:
                generator.generate_ids([[2, 300, 301]], 2)
        held = resident() - before
        generator.unload(files.adapter)
        generator.unload(files.other)
        reloads = []
        for turn in range(2_500):
            start = time.perf_counter()
            generator.set_adapter(choices[turn % 3])
            reloads.append(time.perf_counter() - start)
            if turn == 500:
                before = resident()
        assert held < 8_000_000 and resident() - before < 16_000_000
        swap, reload = statistics.median(swaps), statistics.median(reloads[0::3] + reloads[1::3])
        assert swap < reload / 10
