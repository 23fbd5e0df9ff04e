"""What starts the nights on this machine: a user timer of systemd, or without one an entry in the user's crontab.

Both run `pocketloop schedule run ADAPTER`, which decides itself whether a night is due: a timer that fires once too
often does no harm. Another home's schedule of the same adapter has a timer of its own.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple, Protocol

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.files import atomic_file, sha256_text
from pocketloop.contracts.schedules import Schedule
from pocketloop.schedules.cron import every_zone, local_zone, on_calendar

_MARK = b"# pocketloop schedule "


class Command(NamedTuple):
    """What a timer starts, with everything resolved when the schedule is made."""

    program: Path
    home: Path
    folder: Path
    """Working folder: relative addresses of a recipe are seen from there."""
    log: Path
    """Takes what is printed outside of nights."""

    def checked(self) -> "Command":
        """The same.

        Raises:
            ConfigError: a path holds a character that would end a line.
        """
        for path in self:
            if any(character < " " or character == "\x7f" for character in str(path)):
                raise ConfigError(f"{str(path)!r}: a schedule cannot be made in a folder whose name has control signs")
        return self


class Timer(Protocol):
    """Starts nights of this machine."""

    def install(self, schedule: Schedule, command: Command) -> str:
        """Write the schedule's timer, in place of a former one; says in a line where it is."""
        ...

    def remove(self, adapter: str, home: Path) -> None:
        """Remove the timer, if it is there."""
        ...


def timer_of(starter: str) -> Timer:
    """The timer of a schedule's `starter`."""
    return Systemd() if starter == "systemd" else Crontab()


def starter_here() -> str:
    """`systemd` where a user's own timers can be had, else `crontab`.

    Raises:
        ConfigError: this machine has neither.
    """
    if shutil.which("systemctl") and _run(["systemctl", "--user", "show-environment"]).returncode == 0:
        return "systemd"
    if shutil.which("crontab"):
        return "crontab"
    raise ConfigError(
        "neither a systemd user session nor crontab is here: install cron, or let whatever starts programs on this "
        "machine run `pocketloop retrain ADAPTER --if-new 1`"
    )


def unit_name(adapter: str, home: Path) -> str:
    """Name of the schedule's units and of its crontab entry."""
    return f"pocketloop-{adapter}-{sha256_text(str(home))[:8]}"


class Systemd:
    """Two unit files in the user's own folder."""

    def install(self, schedule: Schedule, command: Command) -> str:
        """Write service and timer, and start the timer."""
        name = unit_name(schedule.adapter, command.home)
        command = command.checked()
        service = (
            f"[Unit]\nDescription=pocketloop: a night of {schedule.adapter}\n\n[Service]\nType=oneshot\n"
            f"WorkingDirectory={_percent(str(command.folder))}\n"
            f"Environment={_unit_word(f'POCKETLOOP_HOME={command.home}')}\n"
            f"ExecStart={_unit_word(str(command.program), dollar=True)} schedule run {schedule.adapter}\n"
        )
        timer = (
            f"[Unit]\nDescription=pocketloop: nights of {schedule.adapter}\n\n[Timer]\n"
            f"OnCalendar={on_calendar(schedule.cron, schedule.tz)}\nPersistent=true\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
        for suffix, text in (("service", service), ("timer", timer)):
            with atomic_file(_units() / f"{name}.{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8")
        _must(["systemctl", "--user", "daemon-reload"])
        _must(["systemctl", "--user", "enable", f"{name}.timer"])
        _must(["systemctl", "--user", "restart", f"{name}.timer"])
        return f"systemd: {_units() / name}.timer (`loginctl enable-linger` lets it run while you are not signed in)"

    def remove(self, adapter: str, home: Path) -> None:
        """Stop the timer and remove both files."""
        name = unit_name(adapter, home)
        if not (_units() / f"{name}.timer").is_file():
            return
        _must(["systemctl", "--user", "disable", "--now", f"{name}.timer"])
        for suffix in ("service", "timer"):
            (_units() / f"{name}.{suffix}").unlink(missing_ok=True)
        _must(["systemctl", "--user", "daemon-reload"])


class Crontab:
    """Lines between two marks at the beginning of the crontab: what others set further down does not reach them."""

    def install(self, schedule: Schedule, command: Command) -> str:
        """Write the entry; where the schedule counts in another time zone than cron does, it looks every 15 minutes."""
        name = unit_name(schedule.adapter, command.home)
        cron = schedule.cron if schedule.tz == local_zone() else every_zone(schedule.cron)
        line = _shell_line(schedule.adapter, command.checked())
        _write_crontab(with_entry(_read_crontab(), name, [f"{cron} {line}", f"@reboot {line}"]))
        return f"crontab: the lines between the marks `{name}` (`crontab -l`)"

    def remove(self, adapter: str, home: Path) -> None:
        """Remove the lines; everything else stays byte for byte."""
        before = _read_crontab()
        after = without_entry(before, unit_name(adapter, home))
        if after != before:
            _write_crontab(after)


def with_entry(crontab: bytes, name: str, lines: list[str]) -> bytes:
    """The crontab with an entry of these lines at its beginning, in place of a former one of the same name."""
    begin, end = _marks(name)
    entry = b"".join(line + b"\n" for line in (begin, *(line.encode() for line in lines), end))
    return entry + without_entry(crontab, name)


def without_entry(crontab: bytes, name: str) -> bytes:
    """The crontab without the entry of this name, every other byte as it was.

    Raises:
        ConfigError: the entry's end is missing.
    """
    begin, end = (mark + b"\n" for mark in _marks(name))
    kept: list[bytes] = []
    inside = False
    for line in _lines(crontab):
        if not inside and line == begin:
            inside = True
        elif inside and line == end:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise ConfigError(f"crontab: {begin.decode().strip()!r} has no end; mend it with `crontab -e`")
    return b"".join(kept)


def _lines(text: bytes) -> list[bytes]:
    """Lines with their `\\n`, at nothing but which a crontab's lines end."""
    return [part + b"\n" for part in text.split(b"\n")[:-1]] + [text.rpartition(b"\n")[2]]


def _marks(name: str) -> tuple[bytes, bytes]:
    return _MARK + name.encode() + b" begin", _MARK + name.encode() + b" end"


def _shell_line(adapter: str, command: Command) -> str:
    folder, home, program, log = (
        shlex.quote(str(path)) for path in (command.folder, command.home, command.program, command.log)
    )
    line = f"cd {folder} && POCKETLOOP_HOME={home} {program} schedule run {adapter} >>{log} 2>&1"
    return line.replace("%", "\\%")  # cron would read a plain one as the end of the line


def _read_crontab() -> bytes:
    read = _run(["crontab", "-l"])
    if read.returncode == 0:
        return read.stdout
    if b"no crontab" in read.stderr.lower():
        return b""
    raise ConfigError(f"crontab -l: {_said(read)}")


def _write_crontab(content: bytes) -> None:
    _must(["crontab", "-"], content)


def _units() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _unit_word(text: str, dollar: bool = False) -> str:
    """A word of a unit file, quoted; `$` means a variable in commands alone."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _percent(quoted.replace("$", "$$") if dollar else quoted) + '"'


def _must(arguments: list[str], given: bytes | None = None) -> None:
    done = _run(arguments, given)
    if done.returncode != 0:
        raise ConfigError(f"{shlex.join(arguments)}: {_said(done)}")


def _run(arguments: list[str], given: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(arguments, input=given, capture_output=True, check=False)


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
