"""What the commands print: words for people on stdout, errors on stderr, JSON when a program reads."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

_FILE_WIDTH = 120
"""Columns of a table that goes into a file or a pipe, which have no width of their own."""
VERBOSE = "POCKETLOOP_VERBOSE"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@cache
def console() -> Any:
    """The one rich console (loading rich takes a tenth of a second).

    Where NO_COLOR is set it is no terminal at all: rich would leave out colours, and keep bold and animations.
    """
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    plain = False if os.environ.get("NO_COLOR") else None
    return Console(highlight=False, soft_wrap=True, width=None if known else _FILE_WIDTH, force_terminal=plain)


def is_verbose() -> bool:
    """Whether tracebacks and the libraries' own lines are wanted (`--verbose`, POCKETLOOP_VERBOSE=1)."""
    return os.environ.get(VERBOSE, "") not in ("", "0")


def be_verbose() -> None:
    """Show what libraries log, in this process and in those that it starts."""
    os.environ[VERBOSE] = "1"
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def say(text: str = "") -> None:
    """Print a line, with rich markup."""
    console().print(text)


def complain(text: str) -> None:
    """Print an error on stderr."""
    print(f"error: {text}", file=sys.stderr)


@contextmanager
def narrated() -> Iterator[None]:
    """Tell on stderr what long work does, as its modules log it, until it ends."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("  %(message)s"))
    log = logging.getLogger("pocketloop")
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


def emit(value: "BaseModel | dict[str, Any] | list[Any]") -> None:
    """Print JSON and nothing else."""
    data = value if isinstance(value, dict | list) else value.model_dump(mode="json")
    print(json.dumps(data, indent=2, ensure_ascii=False))


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a small table; columns whose name starts with `>` are aligned to the right."""
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        shown.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        shown.add_row(*row)
    console().print(shown)
