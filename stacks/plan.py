"""What applying a stack file would change in ZenML, found without changing anything."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from pocketloop.contracts.errors import ConfigError
from stacks.config import Component, StackConfig

HIDDEN = "(hidden)"
_SECRET = re.compile(r"secret|password|token|credential|api_?key|^key$", re.IGNORECASE)
_REFERENCE = re.compile(r"^\{\{\s*([^\s.]+)\.(\S+?)\s*\}\}$")
_ACCOUNT = re.compile(r"(?<=://)[^/@\s]+(?=@)")


class KeyChange(BaseModel):
    """One key of a component's configuration; None is a key that is not there. Values of secrets are not shown."""

    key: str
    old: str | None
    new: str | None


class ComponentPlan(BaseModel):
    """What becomes of one component."""

    type: str
    name: str
    flavor: str
    what: Literal["created", "updated", "unchanged"]
    changes: list[KeyChange] = []
    wanted: dict[str, Any] = Field(default={}, exclude=True, repr=False)
    """The configuration as ZenML keeps it; it may hold secrets and is never printed."""


class StackPlan(BaseModel):
    """What applying a stack file does."""

    name: str
    stack: Literal["created", "updated", "unchanged"]
    components: list[ComponentPlan]
    removed: list[str] = []
    """Types of components that the stack has and the file does not."""
    activated: bool
    """Whether another stack was the active one."""

    @property
    def changed(self) -> bool:
        """Whether applying changes anything."""
        return self.stack != "unchanged" or self.activated or any(part.what != "unchanged" for part in self.components)


def plan_stack(client: Any, path: Path, config: StackConfig) -> StackPlan:
    """Compare a stack file with what ZenML holds.

    Raises:
        ConfigError: an unknown type, flavor or key; a configuration that ZenML refuses; a flavor that changed.
    """
    parts = [plan_component(client, path, config.name, kind, part) for kind, part in config.components.items()]
    stacks = client.list_stacks(name=config.name).items
    if not stacks:
        return StackPlan(name=config.name, stack="created", components=parts, activated=True)
    held = {str(kind.value): [found.name for found in there] for kind, there in stacks[0].components.items()}
    same = held == {part.type: [part.name] for part in parts}
    return StackPlan(
        name=config.name,
        stack="unchanged" if same else "updated",
        components=parts,
        removed=sorted(set(held) - set(config.components)),
        activated=client.active_stack_model.name != config.name,
    )


def plan_component(client: Any, path: Path, stack: str, kind: str, component: Component) -> ComponentPlan:
    """Compare one component of a stack file with what ZenML holds under its name, `STACK-TYPE`."""
    from zenml.enums import StackComponentType

    if kind not in StackComponentType.values():
        raise ConfigError(f"{path}: unknown component type {kind!r}; {_near(kind, StackComponentType.values())}")
    typed = StackComponentType(kind)
    for reference in sorted(secret_references(component.configuration)):
        if missing := missing_secret(client, *reference):
            raise ConfigError(f"{path}: {kind}: {missing}")
    name = f"{stack}-{kind}"
    found = client.list_stack_components(name=name, type=typed).items
    if found and found[0].flavor_name != component.flavor:
        raise ConfigError(
            f"{path}: {kind}: ZenML holds {name} with flavor {found[0].flavor_name}, the file says {component.flavor}. "
            "A flavor cannot be changed in place, and what was made with the component refers to it: give the stack "
            f"another `name`, or delete both first (zenml stack delete {stack}; "
            f"zenml {kind.replace('_', '-')} delete {name})"
        )
    wanted, secrets = _validated(client, path, typed, component, found[0].configuration if found else {})
    held = found[0].configuration if found else {}
    changes = [
        KeyChange(key=key, old=shown(key, held.get(key), secrets), new=shown(key, wanted.get(key), secrets))
        for key in sorted(set(held) | set(wanted))
        if held.get(key) != wanted.get(key)
    ]
    what: Literal["created", "updated", "unchanged"] = "updated" if changes else "unchanged"
    return ComponentPlan(
        type=kind,
        name=name,
        flavor=component.flavor,
        what=what if found else "created",
        changes=changes,
        wanted=wanted,
    )


def shown(key: str, value: Any, secrets: frozenset[str] = frozenset()) -> str | None:
    """A value as it may be printed: references to secrets as they are, secrets hidden, accounts cut out of URLs."""
    if value is None:
        return None
    if isinstance(value, dict):
        inner = ", ".join(f"{name}: {shown(str(name), found)}" for name, found in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(str(shown(key, found)) for found in value)}]"
    if isinstance(value, str) and _REFERENCE.match(value):
        return value
    if isinstance(value, str) and (key in secrets or _SECRET.search(key)):
        return HIDDEN
    return _ACCOUNT.sub(HIDDEN, str(value))


def secret_references(value: Any) -> set[tuple[str, str]]:
    """Every `{{name.key}}` in a configuration, as (name, key)."""
    if isinstance(value, dict):
        return {found for inner in value.values() for found in secret_references(inner)}
    if isinstance(value, list):
        return {found for inner in value for found in secret_references(inner)}
    match = _REFERENCE.match(value) if isinstance(value, str) else None
    return {(match[1], match[2])} if match else set()


def missing_secret(client: Any, name: str, key: str | None) -> str | None:
    """What to do about a secret that ZenML does not hold, or that lacks a key; None when it is there."""
    try:
        held = client.get_secret(name, allow_partial_name_match=False, allow_partial_id_match=False)
    except KeyError:
        return f"ZenML holds no secret {name!r}: zenml secret create {name} --interactive"
    if key is not None and key not in held.values:
        return f"ZenML's secret {name!r} has no key {key!r}: zenml secret update {name} --interactive"
    return None


def _validated(
    client: Any, path: Path, kind: Any, component: Component, held: dict[str, Any]
) -> tuple[dict[str, Any], frozenset[str]]:
    """The configuration as ZenML would keep it, and which of its keys hold secrets."""
    from zenml.stack import Flavor
    from zenml.stack.utils import validate_stack_component_config
    from zenml.utils.secret_utils import is_secret_field

    try:
        flavor = client.get_flavor_by_name_and_type(component.flavor, kind)
    except KeyError:
        known = [found.name for found in client.list_flavors(type=kind, size=100).items]
        raise ConfigError(
            f"{path}: {kind.value}: unknown flavor {component.flavor!r}; {_near(component.flavor, known)}"
        ) from None
    try:
        fields = Flavor.from_model(flavor).config_class.model_fields
        for key in component.configuration:
            if key not in fields:
                raise ConfigError(f"{path}: {kind.value}: unknown key {key!r}; {_near(key, list(fields))}")
        valid = validate_stack_component_config(component.configuration, flavor, kind, existing_config=held)
    except ImportError as error:
        raise ConfigError(
            f"{path}: {kind.value}: {error.name or error} is missing: pip install pocketloop[cluster]"
        ) from None
    except ValidationError as error:
        wrong = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
        raise ConfigError(f"{path}: {kind.value}: {wrong}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {kind.value}: {error}") from None
    assert valid is not None
    secrets = frozenset(key for key, field in fields.items() if is_secret_field(field))
    return valid.model_dump(mode="json", exclude_unset=True), secrets


def _near(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
