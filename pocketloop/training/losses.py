"""Cross entropy of answers without logits that nobody asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pocketloop.training.tokens import IGNORED

LARGE_VOCABULARY = 32_768
"""From this many tokens on, logits are held for a part of the positions at a time and computed again backwards."""
CHUNK_POSITIONS = 512
"""That part: 512 positions of Gemma 3's 262,144 tokens are 0.5 GB of float32."""


def answer_states(causal: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """Last hidden states [n, width] at the n positions whose next token is learnt, and these tokens [n].

    `inputs` holds `input_ids` and `labels` [rows, length] with either an `attention_mask`, or the `position_ids` of
    rows that hold several sequences: where positions start again, transformers lets no attention through.
    """
    given = {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids") if name in inputs}
    hidden = causal.base_model(**given, use_cache=False).last_hidden_state
    labels = inputs["labels"][:, 1:]
    learnt = labels != IGNORED
    return hidden[:, :-1][learnt], labels[learnt]


def project(causal: Any, hidden: Any) -> Any:
    """Logits [n, vocabulary] (float32, soft-capped where the model does so) of last hidden states [n, width]."""
    import torch

    logits = causal.get_output_embeddings()(hidden).float()
    cap = getattr(causal.config.get_text_config(), "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def total_cross_entropy(causal: Any, hidden: Any, tokens: Any) -> Any:
    """Sum over n positions of the nats that the model spends on `tokens` [n] after `hidden` [n, width].

    With a large vocabulary the logits, not the model, would be the peak of memory: they are then made in chunks.
    """
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint

    def total(states: Any, targets: Any) -> Any:
        return cross_entropy(project(causal, states), targets, reduction="sum")

    if causal.config.get_text_config().vocab_size <= LARGE_VOCABULARY:
        return total(hidden, tokens)
    parts = zip(hidden.split(CHUNK_POSITIONS), tokens.split(CHUNK_POSITIONS), strict=True)
    return sum(checkpoint(total, states, targets, use_reentrant=False) for states, targets in parts)


@contextmanager
def computing(causal: Any, compute: Callable[..., Any]) -> Iterator[None]:
    """Have the model's `forward` be `compute` while inside.

    Whoever wraps the model (peft, DDP, FSDP) does its part only when the wrapper itself is called, so a loss of our
    own has to be what the innermost `forward` returns.
    """
    own = causal.__dict__.get("forward")
    causal.forward = compute
    try:
        yield
    finally:
        if own is None:
            del causal.forward
        else:
            causal.forward = own
