"""What the base can do by itself: exact match on its generic tasks, with words that training never drew."""

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Any

from pocketloop.models.tiny.corpus import TASKS, documents
from pocketloop.models.tiny.tokenizer import encode

if TYPE_CHECKING:
    from transformers import Gemma3ForCausalLM, PreTrainedTokenizerFast

ANSWERED = tuple(task for task in TASKS if task != "running_text")


def exact_match(
    model: "Gemma3ForCausalLM", tokenizer: "PreTrainedTokenizerFast", n: int, seed: int = 99
) -> dict[str, float]:
    """Share of held-out documents per task whose last reply greedy decoding gets right to the last token.

    Read off one forward pass: greedy decoding yields the reply exactly when each of its tokens is the most
    likely one given the true ones before it.
    """
    import torch

    scores = {}
    training = model.training
    model.eval()
    for task in ANSWERED:
        hits = 0
        for ids, said in encode(tokenizer, list(islice(documents(seed, evaluation=True, only=task), n))):
            start = next((i + 1 for i in range(len(said) - 2, -1, -1) if not said[i] and said[i + 1]), 0)
            stop = max(i for i, s in enumerate(said) if s) + 1
            with torch.no_grad(), autocast(model):
                best = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].argmax(-1)
            hits += best[start - 1 : stop - 1].tolist() == ids[start:stop]
        scores[task] = round(hits / n, 3)
    model.train(training)
    return scores


def autocast(model: "Gemma3ForCausalLM") -> contextlib.AbstractContextManager[Any]:
    """bf16 matrix products for fp32 weights; nothing for weights that are bf16 already."""
    import torch

    fp32 = next(model.parameters()).dtype == torch.float32
    return torch.autocast("cpu", torch.bfloat16) if fp32 else contextlib.nullcontext()
