"""Reading configuration files so that a mistake is named with its file, line and the nearest right key."""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.parts import Part

Model = TypeVar("Model", bound=BaseModel)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def parse_config(path: Path, model: type[Model], overrides: list[str] | None = None) -> Model:
    """Parse YAML (or JSON, a subset) at `path` into `model`.

    Raises:
        ConfigError: naming file, line, key, and for an unknown key the nearest known one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: expected `key: value` lines at the top")
    lines: dict[tuple[str | int, ...], int] = {}
    data = _build(root, (), lines, path)
    for override in overrides or []:
        _apply(data, override)
    try:
        found = model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, model, lines, item) for item in error.errors())) from None
    if isinstance(found, Part) and (mistakes := found.mistakes()):
        said = (f"{path}:{_line(lines, where)}: `{_dotted(where)}`: {why}" for where, why in mistakes)
        raise ConfigError("\n".join(said))
    return found


def unset_variables(path: Path) -> list[str]:
    """The environment variables that a YAML file needs and that are not set, in the file's order."""
    values = (
        token.value for token in yaml.scan(path.read_text(encoding="utf-8")) if isinstance(token, yaml.ScalarToken)
    )
    named = (match for value in values for match in _VARIABLE.finditer(value))
    return list(dict.fromkeys(match[1] for match in named if match[2] is None and match[1] not in os.environ))


def _build(node: yaml.Node, where: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int], path: Path) -> Any:
    """Turn YAML nodes into plain values, remembering each key's line and expanding `${VAR:-default}`."""
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in result:
                raise ConfigError(f"{path}:{key_node.start_mark.line + 1}: key {key!r} stands twice")
            lines[(*where, key)] = key_node.start_mark.line + 1
            result[key] = _build(value_node, (*where, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*where, index), lines, path) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and "${" in node.value:
        return _VARIABLE.sub(lambda match: _variable(match, path, node.start_mark.line + 1), node.value)
    return yaml.SafeLoader("").construct_object(node)


def _variable(match: re.Match[str], path: Path, line: int) -> str:
    value = os.environ.get(match[1], match[2])
    if value is None:
        raise ConfigError(
            f"{path}:{line}: environment variable {match[1]} is not set (give one, or ${{{match[1]}:-default}})"
        )
    return value


def _apply(data: dict[str, Any], override: str) -> None:
    """Set `a.b.0.c=value` in `data`; the value is read as YAML, missing mappings are created."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {override!r}: expected a.b.c=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from None
    keys = dotted.split(".")
    at: Any = data
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(at, list):
            if not key.isdigit() or int(key) >= len(at):
                raise ConfigError(f"--set {override!r}: {'.'.join(keys[:position])} has items 0 to {len(at) - 1}")
            at = _descend(at, int(key), last, value)
        elif isinstance(at, dict):
            at = _descend(at, key, last, value)
        else:
            raise ConfigError(f"--set {override!r}: {'.'.join(keys[:position])} is a value, not a section")


def _descend(at: Any, key: Any, last: bool, value: Any) -> Any:
    if last:
        at[key] = value
        return value
    if isinstance(at, dict) and at.get(key) is None:
        at[key] = {}
    return at[key]


def _explain(path: Path, model: type[BaseModel], lines: dict[tuple[str | int, ...], int], item: Any) -> str:
    # pydantic names the branch of a union inside `loc`; keep only what stands in the file (or is missing from it).
    where: tuple[str | int, ...] = ()
    for position, part in enumerate(item["loc"]):
        if (*where, part) in lines or position == len(item["loc"]) - 1:
            where = (*where, part)
    line, key = _line(lines, where), _dotted(where)
    if item["type"] == "extra_forbidden":
        known = sorted(_keys_at(model, item["loc"][:-1]))
        near = get_close_matches(str(where[-1]), known, 1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
        return f"{path}:{line}: unknown key `{key}`; {hint}"
    if item["type"] == "missing":
        return f"{path}:{line}: key `{key}` is missing"
    given = item.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{path}:{line}: `{key}`: {item['msg'].removeprefix('Value error, ')}{shown}"


def _line(lines: dict[tuple[str | int, ...], int], where: tuple[str | int, ...]) -> int:
    """The line of a key, or of the nearest section around it."""
    return next((lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in lines), 1)


def _dotted(where: tuple[str | int, ...]) -> str:
    return ".".join(map(str, where))


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> set[str]:
    """The field names of the model(s) that `location` leads to."""
    candidates: list[Any] = [model]
    for part in location:
        step: list[Any] = []
        for candidate in candidates:
            for found in _models_in(candidate):
                if isinstance(part, str) and part in found.model_fields:
                    step.append(found.model_fields[part].annotation)
                elif isinstance(part, str) and any(
                    part in get_args(field.annotation) for field in found.model_fields.values()
                ):
                    step.append(found)  # a discriminator's value, e.g. "events"
            if isinstance(part, int):
                step.extend(get_args(candidate))
        candidates = step or candidates
    return {name for candidate in candidates for found in _models_in(candidate) for name in found.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Union or get_args(annotation):
        return [found for part in get_args(annotation) for found in _models_in(part)]
    return []
