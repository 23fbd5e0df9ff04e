"""Whether this machine can hold a training run, asked before anything is loaded."""

from typing import Any

from pocketloop.contracts.loading import load_base_config
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import TrainConfig
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.budget import plan_training
from pocketloop.training.lengths import measure_longest
from pocketloop.training.probe import memory_device
from pocketloop.training.remedies import refuse_if_too_large, what_would_fit
from pocketloop.training.shape import BaseShape, read_shape
from pocketloop.training.stage import TrainingData


def choose_gradient_checkpointing(
    base: BaseConfig, tokenizer: Any, data: TrainingData, task: TaskSpec, training: TrainConfig
) -> list[bool]:
    """For each stage, whether activations must be computed again backwards to fit the memory that is free here now.

    Raises:
        ModelError: a stage does not fit even so; says what would.
    """
    device = memory_device(training.resources.processes_per_node)
    lengths = measure_longest(tokenizer, task, data.train)
    teachers = _teachers(training)
    plan = plan_training(base, training, device, lengths, teachers)
    if not plan.fits:
        refuse_if_too_large(plan, what_would_fit(base, training, device, lengths, teachers))
    return [stage.checkpointing for stage in plan.stages]


def _teachers(training: TrainConfig) -> dict[str, BaseShape]:
    named = {stage.distill.teacher for stage in training.stages if stage.distill}
    return {name: read_shape(load_base_config(name)) for name in sorted(named)}
