"""How surprising the right answers are."""

import math
from pathlib import Path

import pytest
from tinymodels import save_tiny_model

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, make_example
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.evaluation.perplexity import perplexity
from pocketloop.models.bases import load_base
from pocketloop.models.chat import encode_prompt
from pocketloop.models.generators import TransformersGenerator
from pocketloop.tasks.tasks import TaskSpec

CHAT = TaskSpec("chat", None)


def chat(said: str) -> Example:
    return make_example(
        "chat", [Message(role="user", content="Hello"), Message(role="assistant", content=said)], source="t"
    )


def test_perplexity_is_the_exponential_of_transformers_own_loss(tmp_path: Path) -> None:
    import torch

    config = BaseConfig(base="t", source=str(save_tiny_model(tmp_path / "base", layers=1)), architecture="gemma3")
    generator = TransformersGenerator(*load_base(config, "float32"), batch_size=2)
    examples = [chat("the cat sat on the mat"), chat("no"), chat("yes of course it is")]
    losses, tokens = 0.0, 0
    for example in examples:
        prompt = encode_prompt(generator.tokenizer, CHAT.conversation(example.prompt))
        answer = generator.tokenizer(example.answer.content, add_special_tokens=False)["input_ids"]
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.inference_mode():
            loss = generator.model(torch.tensor([prompt + answer]), labels=labels).loss
        losses, tokens = losses + float(loss) * len(answer), tokens + len(answer)
    found = perplexity(generator, [*examples, chat("")], CHAT, longest=200)
    assert found is not None
    assert found.n == tokens
    assert found.value == pytest.approx(math.exp(losses / tokens), rel=1e-3)
    assert found.low <= found.value <= found.high
    assert perplexity(generator, [chat("")], CHAT, longest=200) is None
    assert perplexity(generator, examples, CHAT, longest=3) is None
