"""Refusing a plan that does not fit, and naming the changes to the recipe with which it would."""

from pocketloop.contracts.devices import Device
from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import Resources, TrainConfig
from pocketloop.training.budget import TrainingPlan, plan_training
from pocketloop.training.lengths import DataLengths
from pocketloop.training.shape import BaseShape


def refuse_if_too_large(plan: TrainingPlan, remedies: list[str]) -> None:
    """Stop before anything is loaded where the plan does not fit.

    Raises:
        ModelError: names the stage, what it needs by part, what there is, and what would fit.
    """
    if plan.fits:
        return
    largest = max(plan.stages, key=lambda stage: stage.peak)
    parts = sorted(largest.memory.parts.items(), key=lambda part: -part[1])[:3]
    shares = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts)
    hint = "; or ".join(f"--set {remedy.replace(' ', ' --set ')}" for remedy in remedies)
    raise ModelError(
        f"{largest.key} needs {largest.peak / 1e9:.1f} GB ({shares} GB, with gradient checkpointing), "
        f"{plan.device.title} has {plan.device.usable_bytes / 1e9:.1f} GB: "
        + (f"it would fit with {hint}" if remedies else "nothing in the recipe would make it fit: take a smaller base")
    )


def what_would_fit(
    base: BaseConfig,
    training: TrainConfig,
    device: Device,
    data: DataLengths | None = None,
    teachers: dict[str, BaseShape] | None = None,
) -> list[str]:
    """Single changes to the recipe, as `--set` takes them, with each of which the plan fits; else one of all together.

    Empty when nothing helps.
    """

    def fits(changed: TrainConfig) -> bool:
        try:
            return plan_training(base, changed, device, data, teachers).fits
        except ConfigError:
            return False

    single: list[str] = []
    qlora = _with_qlora(training)
    if training.lora.method != "qlora" and fits(qlora):
        single.append("train.lora.method=qlora")
    for field, smallest in (("batch_size", 1), ("max_length", 64)):
        sizes = _halved(training, base, device, data, teachers, field, smallest)
        if sizes and fits(_with_sizes(training, field, sizes)):
            single.append(" ".join(f"train.stages.{n}.{_name(training, n)}.{field}={sizes[n]}" for n in sorted(sizes)))
    for processes in (2, 4, 8):
        resources = Resources(processes=processes, strategy="fsdp")
        if (
            device.gpu
            and training.lora.method != "qlora"
            and fits(training.model_copy(update={"resources": resources}))
        ):
            single.append(f"train.resources.processes={processes} train.resources.strategy=fsdp")
            break
    if single:
        return single
    sizes = _halved(qlora, base, device, data, teachers, "batch_size", 1)
    if not fits(_with_sizes(qlora, "batch_size", sizes)):
        return []
    settings = [f"train.stages.{n}.{_name(training, n)}.batch_size={size}" for n, size in sorted(sizes.items())]
    return [" ".join(["train.lora.method=qlora", *settings])]


def _name(training: TrainConfig, number: int) -> str:
    return training.stages[number].name


def _with_qlora(training: TrainConfig) -> TrainConfig:
    return training.model_copy(update={"lora": training.lora.model_copy(update={"method": "qlora"})})


def _with_sizes(training: TrainConfig, field: str, sizes: dict[int, int]) -> TrainConfig:
    stages = [
        stage.model_copy(update={stage.name: stage.config.model_copy(update={field: sizes[number]})})
        if number in sizes
        else stage
        for number, stage in enumerate(training.stages)
    ]
    return training.model_copy(update={"stages": stages})


def _halved(
    training: TrainConfig,
    base: BaseConfig,
    device: Device,
    data: DataLengths | None,
    teachers: dict[str, BaseShape] | None,
    field: str,
    smallest: int,
) -> dict[int, int]:
    """The size, by stage, at which each stage that is too large alone fits, halving down to `smallest`."""
    sizes: dict[int, int] = {}
    for number, stage in enumerate(training.stages):
        size = getattr(stage.config, field)
        alone = training.model_copy(update={"stages": [stage]})
        while size // 2 >= smallest:
            tried = _with_sizes(alone, field, {0: size}) if number in sizes else alone
            if plan_training(base, tried, device, data, teachers).fits:
                break
            size //= 2
            sizes[number] = size
    return sizes
