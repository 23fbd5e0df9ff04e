"""Several sequences in one row, so that no time goes into padding.

A row's positions start again with every sequence, and attention stops there: with transformers' `eager` and `sdpa` the
mask is made from the positions, `flash_attention_2` takes the sequences' bounds from them and wants a single row. So a
packed batch has the loss and the gradients of its sequences apart.
"""

from collections.abc import Sequence
from typing import Any

from pocketloop.contracts.errors import ModelError
from pocketloop.training.tokens import IGNORED

_MASKED = ("eager", "sdpa")
_ONE_ROW = ("flash_attention_2", "flash_attention_3")


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of indices whose lengths add up to at most `capacity`: first fit, longest first.

    A sequence longer than `capacity` has a row of its own.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((row for row, left in enumerate(free) if lengths[index] <= left), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(capacity)
        rows[row].append(index)
        free[row] -= lengths[index]
    return rows


class PackingCollator:
    """Puts the sequences of a batch into rows of at most `capacity` tokens, or into one row for flash attention."""

    def __init__(self, attention: str, capacity: int, pad: int) -> None:
        """Raises ModelError where it is not known that `attention` keeps sequences apart."""
        if attention not in (*_MASKED, *_ONE_ROW):
            raise ModelError(
                f"packing: attention `{attention}` may look across the sequences of a row; it works with "
                f"{', '.join((*_MASKED, *_ONE_ROW))}"
            )
        self.capacity = None if attention in _ONE_ROW else capacity
        self.pad = pad

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        """`input_ids`, `labels` and `position_ids` [rows, length]; `real_tokens` is what is no padding."""
        import torch

        lengths = [len(row["input_ids"]) for row in rows]
        packed = pack(lengths, self.capacity or sum(lengths))
        width = max(sum(lengths[index] for index in row) for row in packed)
        batch = {"input_ids": self.pad, "labels": IGNORED, "position_ids": 0}
        tensors = {name: torch.full((len(packed), width), value) for name, value in batch.items()}
        for place, members in enumerate(packed):
            start = 0
            for index in members:
                end = start + lengths[index]
                tensors["input_ids"][place, start:end] = torch.tensor(rows[index]["input_ids"])
                tensors["labels"][place, start:end] = torch.tensor(rows[index]["labels"])
                tensors["labels"][place, start] = IGNORED  # nothing before it in its own sequence predicts it
                tensors["position_ids"][place, start:end] = torch.arange(lengths[index])
                start = end
            tensors["position_ids"][place, start:] = torch.arange(width - start)
        return {**tensors, "real_tokens": torch.tensor(sum(lengths))}
