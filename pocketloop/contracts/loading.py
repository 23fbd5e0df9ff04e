"""The configuration files by name: recipes, bases, ladders and the rest of `configs/`.

What a file's record needs is imported when such a file is read: the command line imports this module to start.
"""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import project_root

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pocketloop.contracts.collecting import CollectorConfig, ComputeConfig
    from pocketloop.contracts.exports import DeviceClasses
    from pocketloop.contracts.labels import Rubric
    from pocketloop.contracts.lowering import Lowering
    from pocketloop.contracts.recipe import BaseConfig, Catalogue, Recipe
    from pocketloop.contracts.rollout import DeliveryConfig, Ladder
    from pocketloop.contracts.schedules import ScheduleConfig

Model = TypeVar("Model", bound="BaseModel")


def load_recipe(name: str, overrides: list[str] | None = None) -> "Recipe":
    """Load `configs/adapters/NAME.yaml`, or the file at a path, with `a.b.c=value` overrides applied."""
    from pocketloop.contracts.recipe import Recipe

    path = _find(name, "adapters", "adapter")
    recipe = load_config(path, Recipe, overrides)
    if recipe.export.budget.devices:
        known = load_device_classes().classes
        for device in recipe.export.budget.devices:
            if device not in known:
                raise ConfigError(f"{path}: export.budget.devices: no class {device!r}; known: {', '.join(known)}")
    return recipe


def load_base_config(name: str) -> "BaseConfig":
    """Load `configs/bases/NAME.yaml` or the file at a path; relative sources are made absolute."""
    from pocketloop.contracts.recipe import BaseConfig

    path = _find(name, "bases", "base")
    config = load_config(path, BaseConfig)
    local = (path.parent / config.source).resolve()
    update: dict[str, Any] = {"source": str(local)} if local.is_dir() else {}
    for key in ("chat_template", "calibration"):
        if named := getattr(config, key):
            update[key] = str((path.parent / named).resolve())
    return config.model_copy(update=update)


def load_catalogue(recipe: "Recipe") -> "Catalogue | None":
    """Load the recipe's catalogue, if it names one."""
    from pocketloop.contracts.recipe import Catalogue

    if recipe.catalogue is None:
        return None
    path = Path(recipe.catalogue)
    path = path if path.is_absolute() else project_root() / path
    if not path.is_file():
        raise ConfigError(f"recipe {recipe.adapter}: catalogue {recipe.catalogue} does not exist")
    return load_config(path, Catalogue)


def load_ladder(name: str) -> "Ladder":
    """Load `configs/rollouts/NAME.yaml`, or the file at a path."""
    from pocketloop.contracts.rollout import Ladder

    return load_config(_find(name, "rollouts", "rollout ladder"), Ladder)


def load_rubric(name: str) -> "Rubric":
    """Load `configs/rubrics/NAME.yaml`, or the file at a path."""
    from pocketloop.contracts.labels import Rubric

    return load_config(_find(name, "rubrics", "rubric"), Rubric)


def load_lowering(name: str) -> "Lowering":
    """Load `configs/lowerings/NAME.yaml`, or the file at a path."""
    from pocketloop.contracts.lowering import Lowering

    return load_config(_find(name, "lowerings", "lowering"), Lowering)


def load_delivery() -> "DeliveryConfig":
    """Load `configs/delivery.yaml`."""
    from pocketloop.contracts.rollout import DeliveryConfig

    return load_config(project_root() / "configs" / "delivery.yaml", DeliveryConfig)


def load_collector() -> "CollectorConfig":
    """Load `configs/collector.yaml`."""
    from pocketloop.contracts.collecting import CollectorConfig

    return load_config(project_root() / "configs" / "collector.yaml", CollectorConfig)


def load_compute() -> "ComputeConfig":
    """Load `configs/compute.yaml`."""
    from pocketloop.contracts.collecting import ComputeConfig

    return load_config(project_root() / "configs" / "compute.yaml", ComputeConfig)


def load_schedules() -> "ScheduleConfig":
    """Load `configs/schedules.yaml`."""
    from pocketloop.contracts.schedules import ScheduleConfig

    return load_config(project_root() / "configs" / "schedules.yaml", ScheduleConfig)


def load_device_classes() -> "DeviceClasses":
    """Load `configs/device_classes.yaml`."""
    from pocketloop.contracts.exports import DeviceClasses

    return load_config(project_root() / "configs" / "device_classes.yaml", DeviceClasses)


def load_config(path: Path, model: type[Model], overrides: list[str] | None = None) -> Model:
    """Parse YAML (or JSON, a subset) at `path` into `model`.

    Raises:
        ConfigError: naming file, line, key, and for an unknown key the nearest known one.
    """
    from pocketloop.contracts.parsing import parse_config

    return parse_config(path, model, overrides)


def _find(name: str, folder: str, kind: str) -> Path:
    if name.endswith((".yaml", ".yml")) or os.sep in name:
        return Path(name)
    configs = project_root() / "configs" / folder
    path = configs / f"{name}.yaml"
    if path.is_file():
        return path
    known = sorted(p.stem for p in configs.glob("*.yaml"))
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    raise ConfigError(f"unknown {kind} {name!r}: no {path.relative_to(project_root())}; {hint}")
