"""How a command ends: its exit status, and one line on stderr where something was wrong.

Typer's own errors become a line with the command whose `--help` says more; the project's errors are a line already; of
anything else the line names the kind and the place, and the traceback goes into a file that only its owner can read,
because the message of an unexpected error may quote somebody's data.
"""

import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pocketloop.cli.console import VERBOSE, be_verbose, complain, is_verbose
from pocketloop.contracts.errors import UNEXPECTED, PocketloopError, stage_of
from pocketloop.contracts.home import Home, project_root

INTERRUPTED = 130
_KEPT = 20
"""Tracebacks that are kept."""


def run_command(command: Any, arguments: list[str]) -> int:
    """Run the command line; returns the exit status. `--verbose` may stand anywhere before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [argument for argument in arguments[:end] if argument != "--verbose"]
    if len(ours) < end or is_verbose():
        be_verbose()
    try:
        status = command.main([*ours, *arguments[end:]], prog_name="pocketloop", standalone_mode=False)
    except PocketloopError as error:
        complain(str(error) + _where(error))
        _show(error)
        return error.exit_code
    except Exception as error:
        return _unexpected(error) if _said_by_typer(error) is None else _misused(error)
    if status == INTERRUPTED:
        complain("interrupted; the next run goes on from the last finished stage")
    return status if isinstance(status, int) else 0


def _misused(error: Exception) -> int:
    """One line for an unknown command, option or value; the whole help where a group was named without a command."""
    said = _said_by_typer(error) or ""
    if said.startswith("Usage: "):
        print(said, file=sys.stderr)
    else:
        context = getattr(error, "ctx", None)
        hint = f" ({context.command_path} --help)" if context else ""
        line = " ".join(said.split()).rstrip(".")
        complain(f"{line[:1].lower()}{line[1:]}{hint}")
    _show(error)
    return int(getattr(error, "exit_code", 1))


def _said_by_typer(error: Exception) -> str | None:
    """The message of an error that Typer raises about arguments; `None` for any other."""
    if type(error).__name__ == "Abort" and type(error).__module__.startswith("typer"):
        return "aborted"
    message = getattr(error, "format_message", None)
    return str(message()) if callable(message) else None


def _unexpected(error: Exception) -> int:
    kind = type(error).__name__
    # The system's own errors name a file and a reason; other messages may quote what was being read.
    said = f"{kind}: {error}" if isinstance(error, OSError) else f"unexpected {kind} at {_place(error)}"
    kept = _keep(error)
    rest = "" if is_verbose() else f"; --verbose (or {VERBOSE}=1) shows the rest"
    complain(f"{said}{_where(error)}{f'; traceback: {kept}' if kept else ''}{rest}")
    _show(error)
    return UNEXPECTED


def _where(error: Exception) -> str:
    stage = stage_of(error)
    return f" (stage {stage})" if stage else ""


def _place(error: Exception) -> str:
    """File and line of this project's innermost frame."""
    root = project_root()
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(root) and ".venv" not in frame.filename]
    frame = (own or frames)[-1]
    file = Path(frame.filename)
    return f"{file.relative_to(root) if own else file.name}:{frame.lineno}"


def _keep(error: Exception) -> Path | None:
    """Write the traceback where only its owner can read it; `None` where nothing can be written."""
    folder = Home().logs
    path = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.txt"))[: -_KEPT + 1]:
            old.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return None
    return path


def _show(error: Exception) -> None:
    if is_verbose():
        traceback.print_exception(error)
