"""What a recipe's training will hold and take, before any of it is spent: memory by part, operations, time, and whether
it fits a device.
"""

from dataclasses import dataclass, replace

from pocketloop.contracts.devices import Device
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import (
    DistillConfig,
    GroupConfig,
    OnlineConfig,
    PpoConfig,
    Schedule,
    SftConfig,
    Stage,
    StageName,
    TrainConfig,
)
from pocketloop.training.flops import forward_flops, training_flops
from pocketloop.training.lengths import DataLengths, Lengths
from pocketloop.training.losses import CHUNK_POSITIONS, LARGE_VOCABULARY
from pocketloop.training.memory import (
    Batch,
    Memory,
    Precision,
    adapter_bytes,
    cache_bytes,
    step_memory,
    weight_bytes,
)
from pocketloop.training.processes import rows_per_process
from pocketloop.training.shape import BaseShape, read_shape, trainable_parameters

_EAGER_LENGTH = 1024
"""Up to here attention is computed with its matrix of scores on a processor (`hardware.choose_attention`)."""
_HEAP = {True: 0.1, False: 0.5}
"""What the allocator holds between tensors, as a share of what changes from step to step: torch's on a GPU; glibc's on
a processor, measured between 0.4 and 0.75 (docs/training.md)."""
_ROOM = 0.85
"""Share of a device's memory up to which activations are kept rather than computed again."""
_PAIRED: tuple[StageName, ...] = ("dpo", "reward")


@dataclass(frozen=True)
class StagePlan:
    """One stage: `rows` sequences of at most `length` tokens at once in each process.

    `memory` is bytes in each process. `sequences`, `tokens` (through the trained model), `flops` and `seconds` (of all
    processes together working at once) are `None` where the data is not known yet.
    """

    number: int
    name: StageName
    rows: int
    length: int
    checkpointing: bool
    memory: Memory
    heap: float
    sequences: int | None = None
    steps: int | None = None
    tokens: int | None = None
    flops: float | None = None
    seconds: float | None = None

    @property
    def key(self) -> str:
        """Where its settings stand in the recipe."""
        return f"train.stages.{self.number}.{self.name}"

    @property
    def peak(self) -> float:
        """Bytes, with what the allocator holds between tensors."""
        return self.memory.total + self.heap


@dataclass(frozen=True)
class TrainingPlan:
    """What training takes on `device`, stage by stage."""

    shape: BaseShape
    device: Device
    trainable: int
    stages: list[StagePlan]

    @property
    def peak(self) -> float:
        """Bytes that the largest stage holds in one process."""
        return max(stage.peak for stage in self.stages)

    @property
    def fits(self) -> bool:
        """Whether the device holds it."""
        return self.peak <= self.device.usable_bytes

    @property
    def seconds(self) -> float | None:
        """Of all stages; `None` where the data is not known yet."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None


def plan_training(
    base: BaseConfig,
    training: TrainConfig,
    device: Device,
    data: DataLengths | None = None,
    teachers: dict[str, BaseShape] | None = None,
) -> TrainingPlan:
    """Plan every stage on `device`. Without `data`, every row is taken to be `max_length` long: a bound from above.

    `teachers` are the shapes of the bases that `distill` stages name.

    Raises:
        ConfigError: a batch cannot be divided over the processes, or a target is no module of the base.
        ModelError: the base's shape is not to be had.
    """
    shape = read_shape(base)
    stages = []
    for number, stage in enumerate(training.stages):
        plans = [
            _plan_stage(shape, training, number, stage, device, data or DataLengths(), teachers or {}, checkpointing)
            for checkpointing in (False, True)
        ]
        roomy = plans[0].peak <= _ROOM * device.usable_bytes or plans[0].peak <= plans[1].peak
        stages.append(plans[0] if roomy else plans[1])
    return TrainingPlan(shape, device, trainable_parameters(shape, training.lora), stages)


def _plan_stage(
    shape: BaseShape,
    training: TrainConfig,
    number: int,
    stage: Stage,
    device: Device,
    data: DataLengths,
    teachers: dict[str, BaseShape],
    checkpointing: bool,
) -> StagePlan:
    config, lora = stage.config, training.lora
    precision = Precision(device.half, lora.method == "qlora")
    known = data.pairs if stage.name in _PAIRED else data.rated if stage.name == "kto" else data.examples
    known = known.within(config.max_length * (2 if stage.name == "dpo" else 1)) if known else None
    rows = rows_per_process(f"train.stages.{number}.{stage.name}", config.batch_size, training.resources.processes)
    length, answers = _sizes(stage, known)
    at_once = rows * (2 if stage.name == "reward" else 1)
    if isinstance(config, SftConfig) and config.packing:
        length = config.max_length
    batch = Batch(
        rows=at_once,
        length=length,
        answers=0 if stage.name == "reward" else at_once * answers,
        fused_attention=device.gpu or length > _EAGER_LENGTH,
        checkpointing=checkpointing,
        logits=6 if isinstance(config, DistillConfig) and _writes(config) else 3,  # the teacher's, too
        logits_chunk=CHUNK_POSITIONS if _chunked(shape, config) else None,
    )
    memory = step_memory(shape, lora, precision, batch)
    memory = replace(
        memory,
        models=_other_models(shape, training, stage, precision, teachers),
        cache=cache_bytes(shape, precision, at_once, length) if _writes(config) else 0.0,
    )
    if training.resources.strategy == "fsdp" and training.resources.processes > 1:
        memory = _sharded(memory, shape, precision, training.resources.processes)
    heap = _HEAP[device.gpu] * (memory.activations + memory.logits + memory.workspace)
    plan = StagePlan(number, stage.name, at_once, length, checkpointing, memory, heap)
    return plan if known is None else _with_time(plan, shape, training, stage, device, known)


def _sizes(stage: Stage, known: Lengths | None) -> tuple[int, int]:
    """(tokens of the longest row, tokens of the longest answer) in a batch."""
    config = stage.config
    longest = config.max_length * (2 if stage.name == "dpo" else 1)
    if known is None:
        return longest, longest
    if not _writes(config):
        return known.longest, known.longest_answer
    new = _new_tokens(config)
    return min(known.longest - known.longest_answer + new, config.max_length), new


def _chunked(shape: BaseShape, config: Schedule) -> bool:
    """Whether the stage's loss makes its logits in parts (`losses.CHUNK_POSITIONS`); trl's own do not."""
    return shape.vocabulary > LARGE_VOCABULARY and not isinstance(config, OnlineConfig)


def _writes(config: Schedule) -> bool:
    """Whether the stage learns from answers that it writes itself."""
    return _new_tokens(config) > 0


def _new_tokens(config: Schedule) -> int:
    if isinstance(config, PpoConfig | GroupConfig):
        return config.max_new_tokens
    if isinstance(config, DistillConfig) and config.mode == "on_policy":
        return config.max_new_tokens
    return 0


def _other_models(
    shape: BaseShape, training: TrainConfig, stage: Stage, precision: Precision, teachers: dict[str, BaseShape]
) -> float:
    """Bytes of the models beside the trained one: a reference costs an adapter, a reward or value model a base.

    The reward stage trains an adapter of its own over a second copy of the base, which is never in 4 bits.
    """
    copy = weight_bytes(shape, Precision(precision.half))
    adapter, gradients, states = adapter_bytes(shape, training.lora)
    config = stage.config
    if stage.name == "reward":
        return copy + adapter
    if isinstance(config, PpoConfig):
        return 2 * copy + 2 * adapter + gradients + states
    if isinstance(config, GroupConfig):
        return adapter + (copy if config.reward == "model" else 0)
    if isinstance(config, DistillConfig):
        teacher = teachers.get(config.teacher, shape)
        return weight_bytes(teacher, Precision(precision.half))
    return 0.0


def _sharded(memory: Memory, shape: BaseShape, precision: Precision, processes: int) -> Memory:
    """Fully sharded: each process holds its part, and gathers one block at a time and the next one."""
    block = shape.linear_parameters / max(shape.layers, 1)
    gathered = (2 * block + shape.embedding_parameters) * precision.bytes
    return replace(
        memory,
        weights=memory.weights / processes,
        adapter=memory.adapter / processes,
        gradients=memory.gradients / processes,
        optimizer=memory.optimizer / processes,
        workspace=memory.workspace + gathered,
    )


def _with_time(
    plan: StagePlan, shape: BaseShape, training: TrainConfig, stage: Stage, device: Device, known: Lengths
) -> StagePlan:
    """Steps, tokens, operations and seconds, from lengths that are known."""
    config, lora = stage.config, training.lora
    rows = min(known.rows, config.prompts or known.rows) if isinstance(config, PpoConfig | GroupConfig) else known.rows
    samples = config.samples if isinstance(config, GroupConfig) else 1
    share = rows / known.rows * config.epochs * samples
    mean = known.tokens / known.rows
    tokens, answers, seconds = known.tokens * share, known.answers * share, 0.0
    if _writes(config):
        written = rows * samples * config.epochs * _new_tokens(config)
        tokens, answers = tokens - answers + written, written
        bytes_read = weight_bytes(shape, Precision(device.half)) / (device.bandwidth_gbs * 1e9)
        at_once = forward_flops(shape, lora, plan.rows, plan.rows, mean) / device.flops
        seconds += written / plan.rows * max(bytes_read, at_once)
    learnt = training_flops(shape, lora, tokens, answers, mean)
    forward = forward_flops(shape, lora, tokens, answers, mean)
    passes = config.inner_epochs if isinstance(config, PpoConfig) else 1
    flops = passes * learnt * (2 if isinstance(config, PpoConfig) else 1)  # the value model learns, too
    flops += forward * _extra_passes(stage) + (passes * forward if plan.checkpointing else 0)
    return replace(
        plan,
        sequences=rows * samples,
        steps=max(1, round(rows * samples * config.epochs / config.batch_size)),
        tokens=round(tokens * passes),
        flops=flops,
        seconds=seconds / training.resources.processes + flops / (device.flops * training.resources.processes),
    )


def _extra_passes(stage: Stage) -> float:
    """Forward passes over all tokens beside the one that is learnt from: references, teachers, reward and values."""
    epochs = max(stage.config.epochs, 1e-9)
    passes = {"dpo": 1 / epochs, "kto": 1 + 2 / epochs, "ppo": 4.0, "grpo": 2.0, "rloo": 2.0, "distill": 1.0}
    return passes.get(stage.name, 0.0)
