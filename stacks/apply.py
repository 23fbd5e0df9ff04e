"""Bring ZenML in line with a stack file: create what is missing, update what differs, leave the rest."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.loading import load_config


class Component(BaseModel):
    """One stack component: its flavor and that flavor's configuration."""

    model_config = ConfigDict(extra="forbid")

    flavor: str
    configuration: dict[str, str] = {}


class StackConfig(BaseModel):
    """A stack file: a name, and one component of each type."""

    model_config = ConfigDict(extra="forbid")

    name: str
    components: dict[str, Component]


def apply_stack(path: Path) -> dict[str, str]:
    """Apply a stack file and make it the active stack; returns what was done to each component.

    Applying the same file twice changes nothing. Raises ConfigError for an unknown component type or flavor.
    """
    config = load_config(path, StackConfig)
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    components: dict[Any, Any] = {}
    done: dict[str, str] = {}
    for type_name, component in config.components.items():
        try:
            kind = StackComponentType(type_name)
        except ValueError:
            known = ", ".join(sorted(StackComponentType.values()))
            raise ConfigError(f"{path}: unknown component type {type_name!r}; known: {known}") from None
        try:
            components[kind], done[type_name] = _apply_component(client, f"{config.name}-{type_name}", kind, component)
        except ValidationError as error:
            wrong = "; ".join(found["msg"].removeprefix("Value error, ") for found in error.errors())
            raise ConfigError(f"{path}: {type_name}: {wrong}") from None
    stacks = client.list_stacks(name=config.name)
    if not stacks.items:
        client.create_stack(name=config.name, components=components)
    else:
        held = {kind: [part.id for part in parts] for kind, parts in stacks.items[0].components.items()}
        if held != {kind: [identifier] for kind, identifier in components.items()}:
            client.update_stack(stacks.items[0].id, component_updates={k: [v] for k, v in components.items()})
    if client.active_stack_model.name != config.name:
        client.activate_stack(config.name)
    return done


def _apply_component(client: Any, name: str, kind: Any, component: Component) -> tuple[Any, str]:
    found = client.list_stack_components(name=name, type=kind)
    if not found.items:
        created = client.create_stack_component(
            name=name, flavor=component.flavor, component_type=kind, configuration=component.configuration
        )
        return created.id, "created"
    held = found.items[0]
    changed = {key: value for key, value in component.configuration.items() if held.configuration.get(key) != value}
    if changed:
        client.update_stack_component(held.id, kind, configuration=changed)
    return held.id, "updated" if changed else "unchanged"
