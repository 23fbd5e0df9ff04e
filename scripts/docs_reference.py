"""MkDocs hooks: pages that are made when the site is built, so that they never say anything else than the code.

- The recipe's reference, from the pydantic schema of `pocketloop.contracts.recipe.Recipe`.
- The command line's reference, from the Typer application.
- Pages that live elsewhere in the repository (README.md, CONTRIBUTING.md, ...), with their links brought along.
"""

import ast
import inspect
import itertools
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

BROUGHT = {
    "index.md": "README.md",
    "tiny.md": "configs/bases/tiny/README.md",
    "notebooks.md": "notebooks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site by name, and the files of the repository that they are."""
_LINK = re.compile(
    r"(?P<before>\]\()(?P<target>[^)\s]+)(?P<after>\))|(?P<attribute>\b(?:src|srcset)=\")(?P<source>[^\"]+)"
)
_WORDS = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "`true` or `false`",
    "null": "`null`",
}
_TAKEN = {"str": "text", "int": "whole number", "float": "number", "path": "path", "list": "text", "uniontype": "text"}
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minItems": "at least {} entries",
}

_RECIPE = """# The recipe

One YAML file says everything about one adapter: `configs/adapters/NAME.yaml`. This page is made from the schema that
reads it, `pocketloop/contracts/recipe/`. `pocketloop recipe check NAME` reads a file with it and names a mistake by
file, line and nearest right key; `pocketloop recipe show NAME` prints a recipe with all its defaults; `--set
a.b.0.c=value` changes one value for one run. An unknown key is an error."""
_COMMANDS = """# Every command

This page is made from the commands themselves; `pocketloop COMMAND --help` says the same. Exit status: 0 done, 1 data
or model cannot be used, 2 a mistake in a configuration or on the command line, 3 registered or judged, but gates not
passed."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here to MkDocs' list of files."""
    from mkdocs.structure.files import File

    made = {"reference/recipe.md": recipe_page(), "reference/commands.md": commands_page()}
    made |= {page: (ROOT / source).read_text("utf-8") for page, source in BROUGHT.items()}
    made["index.md"] = "---\nhide: [navigation]\n---\n" + made["index.md"]
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead a page's links to where its targets stand on the site; what is not on the site stays as text."""
    name = page.file.src_uri
    if name in BROUGHT or not name.startswith("reference/"):
        return led(markdown, BROUGHT.get(name, f"docs/{name}"), name)
    return markdown


def led(markdown: str, source: str, page: str) -> str:
    """The text of the repository's file `source` as the site's `page`: every relative link leads to a page, or goes."""

    def one(found: re.Match[str]) -> str:
        target = found["target"] or found["source"]
        there = place_of(target, source, page)
        if found["attribute"]:
            return f"{found['attribute']}{there or target}"
        return f"]({there})" if there else "]"

    texts = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)
    return "".join(text if text.startswith("```") else _without_brackets(_LINK.sub(one, text)) for text in texts)


def place_of(target: str, source: str, page: str) -> str:
    """Where a link of the repository's file `source` leads on the site, seen from `page`; empty where to no page."""
    path, hash_, anchor = target.partition("#")
    if "://" in target or target.startswith("mailto:") or not path:
        return target
    wanted = os.path.normpath(PurePosixPath(source).parent / path)
    pages = {file: name for name, file in BROUGHT.items()}
    inside = wanted.removeprefix("docs/") if wanted.startswith("docs/") else pages.get(wanted)
    return os.path.relpath(inside, PurePosixPath(page).parent) + hash_ + anchor if inside else ""


def _without_brackets(text: str) -> str:
    """A link whose target has gone is its label alone."""
    return re.sub(r"(?<![\]!])\[(`[^`\]]+`|[^\[\]`]+)\](?![(\[:])", r"\1", text)


def recipe_page() -> str:
    """Every section and key of a recipe, with type, default, bounds and docstring."""
    from pocketloop.contracts import recipe, training

    models = {name: each for module in (training, recipe) for name, each in vars(module).items()}
    schema = recipe.Recipe.model_json_schema()
    parts: dict[str, dict[str, Any]] = {"Recipe": schema, **schema["$defs"]}
    places = _places(parts)
    lines = [_RECIPE]
    for name, found in places.items():
        part = parts[name]
        if "properties" not in part:
            continue
        lines += [
            "",
            f"{'##' if '.' not in found[0] else '###'} {_title(name, found, places)} {{ #{name.lower()} }}",
            "",
        ]
        lines += [part.get("description", ""), ""]
        if len(found) > 1:
            lines += [f"The same stands at {', '.join(f'`{place}`' for place in found[1:])}.", ""]
        rows = [_row(models[name], key, field) for key, field in part["properties"].items()]
        lines += _table([("key", "type", "default", "bounds", ""), *rows])
    return "\n".join(lines) + "\n"


def _title(name: str, found: list[str], places: dict[str, list[str]]) -> str:
    if name == "Recipe":
        return "The file"
    shared = [other for other in places.values() if other[0] == found[0]]
    return f"`{found[0]}`" + (f" ({name})" if len(shared) > 1 else "")


def _places(parts: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """For each part of the schema, depth first, the keys under which it stands."""
    found: dict[str, list[str]] = {"Recipe": [""]}

    def walk(name: str, place: str) -> None:
        for key, field in parts[name].get("properties", {}).items():
            for reference, below in _references(field):
                there = ".".join(filter(None, (place, key))) + below
                known = reference in found
                found.setdefault(reference, []).append(there)
                if not known:
                    walk(reference, there)

    walk("Recipe", "")
    return found


def _references(field: Any, below: str = "") -> Iterator[tuple[str, str]]:
    """The parts that a field's schema names; behind each, what stands between the field and it."""
    if "$ref" in field:
        yield field["$ref"].rsplit("/", 1)[1], below
    for either in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        yield from _references(either, below)
    if isinstance(field.get("items"), dict):
        yield from _references(field["items"], below + "[]")
    if isinstance(field.get("additionalProperties"), dict):
        yield from _references(field["additionalProperties"], below + ".NAME")


def _row(model: Any, key: str, field: dict[str, Any]) -> tuple[str, ...]:
    told = _attribute_docs(model).get(key, "").replace("\n", " ")
    return f"`{key}`", _type(field), _default(model.model_fields[key]), ", ".join(_bounds(field)), told


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows, the first of them the head, as a table without the columns in which nothing stands."""
    head, *rest = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    kept = [at for at in range(len(head)) if any(row[at] for row in rest)]
    lines = [[row[at] for at in kept] for row in (head, ["---"] * len(head), *rest)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _type(field: dict[str, Any]) -> str:
    """A field's type in words; parts are links to their section."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    either = field.get("anyOf") or field.get("oneOf")
    if either:
        return " or ".join(dict.fromkeys(map(_type, either)))
    values = field.get("enum", [field["const"]] if "const" in field else [])
    if values:
        return " or ".join(f"`{value}`" for value in values)
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("type") == "object":
        below = field.get("patternProperties", {"": field.get("additionalProperties", {})})
        return f"map of names to {_type(next(iter(below.values())))}"
    return _WORDS.get(field.get("type", ""), "anything")


def _bounds(field: dict[str, Any]) -> list[str]:
    found = [
        text.format(f"{field[key]:g}" if isinstance(field[key], float) else field[key])
        for key, text in _BOUNDS.items()
        if key in field
    ]
    for either in (*field.get("anyOf", ()), *filter(None, [field.get("items")])):
        found += _bounds(either)
    return list(dict.fromkeys(found))


def _default(field: Any) -> str:
    """The default as a recipe would say it; a whole section's defaults stand in its own table."""
    from pydantic import BaseModel

    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see there"
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return (
            f"`[{', '.join('{' + str(one.name) + ': {}}' for one in value)}]`"  # training stages, with their defaults
        )
    return f"`{json.dumps(value, ensure_ascii=False)}`"


@cache
def _attribute_docs(model: Any) -> dict[str, str]:
    """The docstrings below a model's fields, its bases' included; read from the source."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each.__module__.startswith("pocketloop."):
            body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
            for field, after in itertools.pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                    found[field.target.id] = inspect.cleandoc(after.value.value)  # type: ignore[union-attr, attr-defined]
    return found


def commands_page() -> str:
    """Every command with its arguments, options and example."""
    import typer

    from pocketloop.cli.main import app

    lines = [_COMMANDS]
    for words, command in commands(typer.main.get_command(app), ("pocketloop",)):
        lines += ["", f"{'#' * min(len(words), 3)} {' '.join(words)}" if len(words) > 1 else "", ""]
        lines += [*_help(command), *_parameters(command)]
        if command.epilog:
            lines += ["", f"```\n{command.epilog.removeprefix('Example: ')}\n```"]
    return "\n".join(lines) + "\n"


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, with the words that call each."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from commands(below, (*words, name))


def _help(command: Any) -> list[str]:
    return [re.sub(r"[\b\f]", "", command.help or "").strip(), ""]


def _parameters(command: Any) -> list[str]:
    rows = []
    for each in command.params:
        if getattr(each, "hidden", False) or each.name == "help":
            continue
        argument = each.param_type_name == "argument"
        name = f"`{each.name.upper()}`" if argument else ", ".join(f"`{option}`" for option in each.opts)
        flag = getattr(each, "is_flag", False)
        default = (
            "**required**" if each.required else "" if flag or each.default in (None, (), "") else f"`{each.default}`"
        )
        rows.append(
            (name, "" if flag else _taken(each), default, (getattr(each, "help", None) or "").replace("<", "&lt;"))
        )
    return _table([("", "takes", "default", ""), *rows]) if rows else []


def _taken(parameter: Any) -> str:
    """What an option takes, as `--help` would say it."""
    annotation = parameter.type_descriptor.annotation
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    name = getattr(annotation, "__name__", "text").lower()
    taken = parameter.metavar or " or ".join(f"`{one}`" for one in choices) or _TAKEN.get(name, name)
    return f"{taken}, repeatable" if parameter.multiple else taken
