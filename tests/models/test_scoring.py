"""How probable both runtimes find given answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tinymodels import save_tiny_adapter, save_tiny_model

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import sha256_file
from pocketloop.export.gguf_lora import convert_lora
from pocketloop.export.gguf_model import convert_model
from pocketloop.models import llama_cpp
from pocketloop.models.chat import load_tokenizer
from pocketloop.models.generators import TransformersGenerator
from pocketloop.models.llama_cpp import LlamaCppGenerator

VOCABULARY = 448


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    save_tiny_model(folder / "model", "gemma3")
    convert_model(folder / "model", folder / "base.gguf", "F32")
    save_tiny_adapter(folder / "model", folder / "adapter")
    convert_lora(folder / "adapter", folder / "model", sha256_file(folder / "base.gguf"), folder / "adapter.gguf")
    return folder


@pytest.fixture(scope="module")
def phone(folder: Path) -> Iterator[LlamaCppGenerator]:
    with LlamaCppGenerator(folder / "base.gguf", folder / "model", threads=1, exact=True, context=256) as made:
        yield made


@pytest.fixture(scope="module")
def trained(folder: Path) -> TransformersGenerator:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32")
    return TransformersGenerator(model, load_tokenizer(folder / "model"), batch_size=4)


def by_hand(phone: LlamaCppGenerator, prompt: list[int], answer: list[int]) -> float:
    """One at a time, from all logits."""
    logits = phone.logits([prompt + answer])[0].astype(np.float64)[len(prompt) - 1 : -1]
    logs = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    return float(logs[np.arange(len(answer)), answer].sum())


def ids(rng: np.random.Generator, count: int) -> list[int]:
    return [int(token) for token in rng.integers(10, VOCABULARY, count)]


def rows(count: int, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts that share beginnings of every length, and answers of one to eleven tokens."""
    rng = np.random.default_rng(seed)
    start = ids(rng, 40)
    prompts = [start[: int(rng.integers(1, 40))] + ids(rng, int(rng.integers(0, 5))) for _ in range(count)]
    return prompts, [ids(rng, int(rng.integers(1, 12))) for _ in range(count)]


def test_many_at_a_time_score_as_one_at_a_time(phone: LlamaCppGenerator) -> None:
    prompts, answers = rows(90)
    expected = [by_hand(phone, *row) for row in zip(prompts, answers, strict=True)]
    assert phone.log_probs(prompts, answers) == pytest.approx(expected, abs=2e-3, rel=1e-4)


def test_both_runtimes_score_alike(phone: LlamaCppGenerator, trained: TransformersGenerator) -> None:
    prompts, answers = rows(30, seed=1)
    assert phone.log_probs(prompts, answers) == pytest.approx(trained.log_probs(prompts, answers), abs=2e-2)


def test_an_adapter_changes_the_scores_and_goes_again(folder: Path, phone: LlamaCppGenerator) -> None:
    prompts, answers = rows(10, seed=2)
    alone = phone.log_probs(prompts, answers)
    phone.set_adapter(folder / "adapter.gguf")
    assert phone.log_probs(prompts, answers) != pytest.approx(alone, abs=0.1)
    phone.set_adapter(None)
    assert phone.log_probs(prompts, answers) == pytest.approx(alone, abs=1e-3)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), together=st.integers(1, 5), room=st.integers(1, 20))
def test_however_little_room_there_is(
    phone: LlamaCppGenerator, seed: int, count: int, together: int, room: int
) -> None:
    """Few slots and few logits at a time: sequences are fed in parts, and slots change hands."""
    prompts, answers = rows(count, seed)
    expected = phone.log_probs(prompts, answers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_cpp, "_SCORED_TOGETHER", together)
        patch.setattr(llama_cpp, "_SCORED_ROOM", room * phone.vocabulary)
        phone._contexts.pop("score").free()
        assert phone.log_probs(prompts, answers) == pytest.approx(expected, abs=2e-3, rel=1e-4)
        phone._contexts.pop("score").free()


def test_nothing_to_score_has_no_scores(phone: LlamaCppGenerator, trained: TransformersGenerator) -> None:
    assert phone.log_probs([], []) == trained.log_probs([], []) == []


@pytest.mark.parametrize(("prompt", "answer"), [([], [1]), ([1], []), ([12] * 200, [13] * 100)])
def test_what_cannot_be_scored_is_an_error(phone: LlamaCppGenerator, prompt: Any, answer: Any) -> None:
    with pytest.raises(ModelError, match="item 1: "):
        phone.log_probs([[12, 13], prompt], [[14], answer])
