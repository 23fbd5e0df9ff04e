"""How commands end: one line, a hint, a status; what a shell completes; colours only where a person looks."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pocketloop.cli.console import VERBOSE
from pocketloop.cli.failing import run_command
from pocketloop.cli.main import app
from pocketloop.contracts.errors import UNEXPECTED, DataError, note_stage, stage_of

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))
ESCAPE = "\x1b"
COLOURS = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS")


def run(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in COLOURS}
    environment |= {"POCKETLOOP_HOME": str(home), "TERM": "xterm-256color", **variables}
    return subprocess.run([POCKETLOOP, *arguments], env=environment, capture_output=True, text=True, check=False)


def on_a_terminal(home: Path, *arguments: str, **variables: str) -> str:
    """What a command writes where its output is a terminal."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in COLOURS}
    environment |= {"POCKETLOOP_HOME": str(home), "TERM": "xterm-256color", **variables}
    process = subprocess.Popen([POCKETLOOP, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait() == 0, written
    return written.decode()


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*path, name))
    if not getattr(command, "commands", {}):
        yield path, command


def test_every_command_says_what_it_does_and_gives_an_example_of_itself() -> None:
    found = dict(leaves(typer.main.get_command(app)))
    assert len(found) > 60
    for path, command in found.items():
        name = " ".join(path).removesuffix(" run")  # `evaluate functions` is `evaluate run functions`
        assert command.help, name
        assert re.search(rf"Example.*\b{re.escape(name)}\b", command.epilog or "", re.DOTALL), name


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["retrian", "functions"], "error: no such command 'retrian'. Did you mean 'retrain'"),
        (["review", "lst"], "error: no such command 'lst'. Did you mean 'list'? (pocketloop review --help)"),
        (["review", "list", "--jsn"], "error: no such option: --jsn (Possible options: --json)"),
        (["retrain"], "error: missing argument 'adapter' (pocketloop retrain --help)"),
        (["watch", "--every", "often"], "error: invalid value for '--every'"),
        (["recipe", "check", "zzz"], "error: unknown adapter 'zzz': no configs/adapters/zzz.yaml; known: assistant"),
    ],
)
def test_a_mistake_in_the_words_is_one_line_that_leads_on(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(typer.main.get_command(app), arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(line), said
    assert said.count("\n") == 1


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(typer.main.get_command(app), ["review"]) == 2
    assert "Commands:" in capsys.readouterr().err


def failing(error: BaseException) -> Any:
    small = typer.Typer(add_completion=False)

    @small.command()
    def fail(name: str = "") -> None:
        raise error

    return typer.main.get_command(small)


def test_what_nobody_expected_is_one_line_and_a_file_for_its_owner(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VERBOSE, raising=False)
    error = KeyError("call Anna at 555 0100")
    note_stage(error, "label")
    assert run_command(failing(error), []) == UNEXPECTED == 70
    said = capsys.readouterr().err
    (kept,) = (home / "logs").iterdir()
    assert said.startswith("error: unexpected KeyError at tests/cli/test_endings.py:")
    assert said.endswith(f"(stage label); traceback: {kept}; --verbose (or {VERBOSE}=1) shows the rest\n")
    assert "Anna" not in said
    assert "Anna" in kept.read_text()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_an_interruption_says_that_a_run_can_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err.endswith("error: interrupted; the next run goes on from the last finished stage\n")


def test_an_error_of_the_system_names_its_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(PermissionError(13, "Permission denied", "/somewhere")), []) == UNEXPECTED
    assert "error: PermissionError: [Errno 13] Permission denied: '/somewhere'" in capsys.readouterr().err


def test_where_no_traceback_can_be_kept_the_line_is_still_said(
    absent_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent_home.write_text("a file where the folder should be")
    assert run_command(failing(ZeroDivisionError()), []) == UNEXPECTED
    assert capsys.readouterr().err.startswith("error: unexpected ZeroDivisionError at")


def test_only_the_newest_tracebacks_are_kept(home: Path) -> None:
    (home / "logs").mkdir(parents=True)
    for number in range(30):
        (home / "logs" / f"20260101-{number:06d}-1.txt").write_text("old")
    run_command(failing(ZeroDivisionError()), [])
    names = sorted(path.name for path in (home / "logs").iterdir())
    assert len(names) == 20
    assert names[0] == "20260101-000011-1.txt"
    assert "ZeroDivisionError" in (home / "logs" / names[-1]).read_text()


def test_the_stage_of_an_error_is_found_behind_the_error_it_became() -> None:
    first = ValueError()
    note_stage(first, "scrub")
    try:
        try:
            raise first
        except ValueError:
            raise DataError("nothing is left") from None
    except DataError as error:
        assert stage_of(error) == "scrub"
    assert stage_of(ValueError()) == ""


@pytest.mark.parametrize("arguments", [["--verbose", "retrain", "nope"], ["retrain", "nope", "--verbose"]])
def test_verbose_may_stand_anywhere_and_shows_the_traceback(home: Path, arguments: list[str]) -> None:
    done = run(home, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, True)
    assert "Traceback" not in run(home, "retrain", "nope").stderr
    assert "Traceback" in run(home, "retrain", "nope", **{VERBOSE: "1"}).stderr


def completed(words: str) -> list[str]:
    at = len(words.split(" ")) - 1
    environment = {**os.environ, "_POCKETLOOP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    done = subprocess.run([POCKETLOOP], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("pocketloop retr", {"retrain"}),
        ("pocketloop review sh", {"show"}),
        ("pocketloop retrain fu", {"functions"}),
        ("pocketloop review show int", {"intent"}),
        ("pocketloop prepare-base gemma", {"gemma-3-1b-it", "gemma-3-270m-it", "gemma-3-4b-it"}),
        ("pocketloop retrain functions --stack lo", {"local"}),
        ("pocketloop review list --js", {"--json"}),
    ],
)
def test_a_shell_completes_commands_and_the_names_of_files(words: str, some: set[str]) -> None:
    assert set(completed(words)) == some


def test_bash_completes_through_the_script_that_is_shown(home: Path) -> None:
    script = run(home, "--show-completion", SHELL="/bin/bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="")
    if script.returncode:  # started by no shell that it knows: the script is the same
        environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        command = [POCKETLOOP, "--show-completion", "bash"]
        script = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    program = f"""{script.stdout}
PATH={Path(POCKETLOOP).parent}:$PATH COMP_WORDS=(pocketloop recipe check per) COMP_CWORD=3
_pocketloop_completion pocketloop
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["persona"]


def test_a_file_or_a_pipe_gets_no_escape_codes(home: Path) -> None:
    assert ESCAPE not in run(home).stdout


def test_a_terminal_gets_bold_and_one_without_colours_gets_text(absent_home: Path) -> None:
    assert ESCAPE in on_a_terminal(absent_home)
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        shown = on_a_terminal(absent_home, **variables)
        assert "nothing here yet" in shown
        assert ESCAPE not in shown


def test_colours_can_be_forced_into_a_pipe_but_not_against_no_color(home: Path) -> None:
    assert ESCAPE in run(home, FORCE_COLOR="1").stdout
    assert ESCAPE not in run(home, FORCE_COLOR="1", NO_COLOR="1").stdout


def test_a_simulation_on_a_terminal_without_colours_moves_nothing(home: Path) -> None:
    program = (
        "from pocketloop.cli.console import console; from rich.progress import track\n"
        "for _ in track(range(3), console=console(), transient=True): pass\n"
        "from pocketloop.cli.console import table; table('', ['a'], [['b']])"
    )
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", program], env=environment, stdout=theirs, check=True)
    os.close(theirs)
    written = os.read(ours, 65536).decode()
    os.close(ours)
    assert ESCAPE not in written
    assert "b" in written


def test_tables_in_files_are_as_wide_as_their_content_up_to_120_columns() -> None:
    program = "from pocketloop.cli.console import table; table('', ['a', 'b'], [['x' * 40, 'y' * 60]])"
    environment = {name: value for name, value in os.environ.items() if name not in COLOURS}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "y" * 60 in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
