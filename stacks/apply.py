"""Bring ZenML in line with a stack file: create what is missing, change what differs, leave the rest."""

from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import ConfigError
from stacks.config import StackConfig, load_stack
from stacks.plan import ComponentPlan, StackPlan, plan_stack


def apply_stack(path: Path) -> StackPlan:
    """Apply a stack file and make it the active stack; returns what was done.

    Applying the same file twice changes nothing.

    Raises:
        ConfigError: an unknown type, flavor or key; a configuration that ZenML refuses; a flavor that changed.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    plan = plan_stack(client, path, load_stack(path))
    components = {StackComponentType(part.type): _apply(client, part) for part in plan.components}
    if plan.stack == "created":
        client.create_stack(name=plan.name, components=components)
    elif plan.stack == "updated":
        gone: dict[Any, Any] = {StackComponentType(kind): [] for kind in plan.removed}
        client.update_stack(plan.name, component_updates={**{k: [v] for k, v in components.items()}, **gone})
    if plan.activated:
        client.activate_stack(plan.name)
    return plan


def require_server(path: Path, config: StackConfig) -> None:
    """Refuse to run on another store than the server that the stack names.

    Raises:
        ConfigError: the stack names a server and ZenML is not connected to it; says how to connect.
    """
    from zenml.client import Client

    if config.server is None:
        return
    if not config.server:
        raise ConfigError(
            f"{path}: this stack keeps its records on a ZenML server: set ZENML_STORE_URL, and ZENML_STORE_API_KEY to "
            "a service account's key"
        )
    if (held := str(Client().zen_store.url)).rstrip("/") != config.server.rstrip("/"):
        raise ConfigError(f"{path}: the server is {config.server}, but ZenML is connected to {held}: unset one of them")


def _apply(client: Any, part: ComponentPlan) -> Any:
    """Create or change a component; gives its id."""
    from zenml.enums import StackComponentType

    kind = StackComponentType(part.type)
    if part.what == "created":
        return client.create_stack_component(
            name=part.name, flavor=part.flavor, component_type=kind, configuration=part.wanted
        ).id
    if part.what == "updated":
        gone = {change.key: None for change in part.changes if change.new is None}
        client.update_stack_component(part.name, kind, configuration={**part.wanted, **gone})
    return client.get_stack_component(kind, part.name, allow_name_prefix_match=False).id
