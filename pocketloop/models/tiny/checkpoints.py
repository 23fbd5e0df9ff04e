"""Pretraining checkpoints: weights and optimizer state in one safetensors file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketloop.contracts.files import atomic_file

if TYPE_CHECKING:
    import torch
    from transformers import Gemma3ForCausalLM


def _tensors(
    model: "Gemma3ForCausalLM", opts: dict[str, "torch.optim.Optimizer"]
) -> Iterator[tuple[str, "torch.Tensor"]]:
    for name, parameter in model.named_parameters():
        yield f"model.{name}", parameter.data
    for kind, optimizer in opts.items():
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                yield f"{kind}.{index}.{key}", value


def save_checkpoint(
    path: Path, chunk: int, model: "Gemma3ForCausalLM", opts: dict[str, "torch.optim.Optimizer"]
) -> None:
    """Write weights and optimizer state after `chunk` chunks to one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    with atomic_file(path) as beside:
        save_file(dict(_tensors(model, opts)), beside, metadata={"chunk": str(chunk)})


def load_checkpoint(path: Path, model: "Gemma3ForCausalLM", opts: dict[str, "torch.optim.Optimizer"]) -> int:
    """Restore what `save_checkpoint` wrote; return the number of chunks trained so far."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        chunk = int(file.metadata()["chunk"])
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"model.{name}"])
    for kind, optimizer in opts.items():
        state: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            if name.startswith(f"{kind}."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return chunk
