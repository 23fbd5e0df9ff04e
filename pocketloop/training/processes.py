"""Several processes that train one adapter together: who writes, who waits, and one gradient for all.

A process that was not started with others (`launch.launch`) is the first of one, and nothing here does anything.
"""

import os
from typing import Any

from pocketloop.contracts.errors import ConfigError, ModelError


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """This one's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process is the one that writes files and reports."""
    return process_number() == 0


def rows_per_process(key: str, batch_size: int, processes: int) -> int:
    """The part of a stage's batch that one process works on: `batch_size` stays what the recipe says.

    Raises:
        ConfigError: the batch cannot be divided over the processes.
    """
    if batch_size % processes:
        raise ConfigError(f"{key}.batch_size {batch_size} cannot be divided over train.resources.processes {processes}")
    return batch_size // processes


def wait_for_all() -> None:
    """Go on when every process has come here: what the first one wrote can then be read."""
    if process_count() > 1:
        import torch.distributed

        torch.distributed.barrier()


def sum_over_all(value: float) -> float:
    """The sum of every process's `value`."""
    if process_count() == 1:
        return value
    import torch

    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return float(total)


def average_gradients_of(trainer: Any) -> None:
    """Have `trainer` average the adapter's gradients over all processes after every backward pass.

    DistributedDataParallel does so only for what is computed through its own forward; our losses ask the model's parts
    directly, so that only answers are projected to the vocabulary. An adapter is small: one exchange of all of its
    gradients costs nothing beside the step, and where DDP has averaged them before it changes nothing.
    """
    if process_count() == 1 or is_sharded():
        return
    backward = trainer.accelerator.backward

    def backward_and_average(loss: Any, **more: Any) -> None:
        backward(loss, **more)
        average_gradients(trainer.model)

    trainer.accelerator.backward = backward_and_average


def average_gradients(model: Any) -> None:
    """Replace each trained parameter's gradient with its mean over all processes."""
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.reshape(-1).float() for parameter in trained])
    torch.distributed.all_reduce(flat)
    flat /= process_count()
    for parameter, mean in zip(trained, flat.split([parameter.numel() for parameter in trained]), strict=True):
        parameter.grad.copy_(mean.view_as(parameter))


def is_sharded() -> bool:
    """Whether every process holds a part of each weight (FSDP) instead of all of it."""
    return process_count() > 1 and os.environ.get("ACCELERATE_USE_FSDP") == "true"


def refuse_if_apart(model: Any) -> None:
    """Check that every process has learnt the same.

    Raises:
        ModelError: the trained weights differ, bit for bit, from one process to another.
    """
    if process_count() == 1 or is_sharded():
        return
    import hashlib

    import torch

    digest = hashlib.sha256()
    for parameter in model.parameters():
        if parameter.requires_grad:
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    digests: list[Any] = [None] * process_count()
    torch.distributed.all_gather_object(digests, digest.hexdigest())
    if len(set(digests)) > 1:
        raise ModelError(
            f"the adapter's weights differ between the {process_count()} training processes, so that none of them can "
            "be trusted; train with train.resources.processes 1"
        )


def gathered_adapter(model: Any) -> dict[str, Any]:
    """The adapter's weights, whole, by their names in a model whose weights are sharded; all processes take part."""
    state = {name: weight for name, weight in model.state_dict().items() if "lora_" in name}
    return {name: weight.full_tensor() if hasattr(weight, "full_tensor") else weight for name, weight in state.items()}
