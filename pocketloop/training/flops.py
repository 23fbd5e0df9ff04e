"""Operations of a pass, counted from shapes alone.

A forward pass multiplies and adds once a weight and token, 2N; the backward pass of a trained weight twice that, of a
frozen one half of it, since only the gradient of its input is wanted (Kaplan et al., "Scaling Laws for Neural Language
Models", 2020, section 2.1: 6N; so 4N under a frozen base, and 6N with its blocks computed again).
"""

from pocketloop.contracts.training import LoraConfig
from pocketloop.training.shape import BaseShape, trainable_parameters


def training_flops(shape: BaseShape, lora: LoraConfig, tokens: float, answers: float, length: float) -> float:
    """Operations to learn from `tokens` in rows of `length`, of which `answers` are projected to the vocabulary.

    Activations are kept; the base is frozen.
    """
    return forward_flops(shape, lora, tokens, answers, length) + _backward(shape, lora, tokens, answers, length)


def forward_flops(shape: BaseShape, lora: LoraConfig, tokens: float, answers: float, length: float) -> float:
    """Forward: 2 for each weight of the blocks and the adapter, and attention's two products over half of the row."""
    attention = 4 * shape.layers * shape.heads * shape.head_dim * length / 2
    weights = 2 * (shape.linear_parameters + trainable_parameters(shape, lora))
    return tokens * (weights + attention) + answers * 2 * shape.hidden * shape.vocabulary


def _backward(shape: BaseShape, lora: LoraConfig, tokens: float, answers: float, length: float) -> float:
    """Backward: frozen weights once, trained ones and attention twice."""
    attention = 8 * shape.layers * shape.heads * shape.head_dim * length / 2
    weights = 2 * shape.linear_parameters + 4 * trainable_parameters(shape, lora)
    return tokens * (weights + attention) + answers * 2 * shape.hidden * shape.vocabulary
