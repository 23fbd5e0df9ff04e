"""Every architecture that a base may have: the phone's runtime says, token for token, what transformers says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tinymodels import ARCHITECTURES, CORPUS, LLAMA3_ROPE, save_tiny_adapter, save_tiny_model

from pocketloop.contracts.files import sha256_file
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.export.gguf_lora import convert_lora
from pocketloop.export.gguf_model import convert_model
from pocketloop.models.bases import load_base, load_with_adapter
from pocketloop.models.chat import encode_prompt
from pocketloop.models.generators import TransformersGenerator
from pocketloop.models.llama_cpp import LlamaCppGenerator

ASKED: list[list[dict[str, Any]]] = [[{"role": "user", "content": text}] for text in CORPUS[:6]]
TOKENS = 16


@pytest.fixture(scope="module", params=ARCHITECTURES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseConfig]:
    rope = LLAMA3_ROPE if request.param == "llama" else None
    folder = save_tiny_model(tmp_path_factory.mktemp(request.param), request.param, rope=rope)
    convert_model(folder, folder / "base.gguf", "F32")
    yield BaseConfig(base=request.param, source=str(folder), architecture=request.param, context=256)


def assert_same_answers(generator: LlamaCppGenerator, model: Any, tokenizer: Any) -> None:
    """Greedy answers are equal, but for ties: Gemma's GELU comes from a float16 table in ggml.

    Every token of llama.cpp's answers must be transformers' best one, or as good to within one percent of the logits'
    spread; and at most one answer of all may have gone another way at such a tie.
    """
    import torch

    expected = TransformersGenerator(model, tokenizer, batch_size=4).generate(ASKED, TOKENS)
    assert len({answer.text for answer in expected}) > 3
    found = generator.generate(ASKED, TOKENS)
    assert sum(one == other for one, other in zip(found, expected, strict=True)) >= len(ASKED) - 1
    prompts = [encode_prompt(tokenizer, conversation) for conversation in ASKED]
    for prompt, answer in zip(prompts, generator.generate_ids(prompts, TOKENS), strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        assert float((logits.amax(1) - chosen).max()) < 0.01 * float(logits.std())


def test_both_runtimes_give_the_same_answers(base: BaseConfig) -> None:
    folder = Path(base.source)
    with LlamaCppGenerator(folder / "base.gguf", folder, threads=1, parallel=4, exact=True) as generator:
        assert_same_answers(generator, *load_base(base, dtype="float32"))


def test_both_runtimes_give_the_same_answers_with_the_adapter(base: BaseConfig) -> None:
    folder = Path(base.source)
    adapter = save_tiny_adapter(folder, folder / "adapter")
    convert_lora(adapter, folder, sha256_file(folder / "base.gguf"), folder / "adapter.gguf", "F32")
    with LlamaCppGenerator(folder / "base.gguf", folder, threads=1, parallel=4, exact=True) as generator:
        plain = generator.generate(ASKED, TOKENS)
        generator.set_adapter(folder / "adapter.gguf")
        assert_same_answers(generator, *load_with_adapter(base, adapter, dtype="float32"))
        assert generator.generate(ASKED, TOKENS) != plain
