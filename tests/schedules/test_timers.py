"""What is written for cron and systemd: our own lines and files, and nobody else's."""

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from timer_programs import install_programs

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.schedules import Schedule
from pocketloop.schedules.cron import local_zone
from pocketloop.schedules.timers import (
    Command,
    Crontab,
    Systemd,
    starter_here,
    unit_name,
    with_entry,
    without_entry,
)

OTHERS = b"MAILTO=ops@example.org\n# backups\n5 4 * * 0 /usr/local/bin/backup --all\t% x\n\n@daily \xff\xfe odd bytes\n"


@pytest.fixture
def cron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key, value in install_programs(tmp_path, systemd=False).items():
        monkeypatch.setenv(key, value)
    return tmp_path / "crontab.txt"


def command(folder: Path, program: str = "/opt/pocketloop/bin/pocketloop") -> Command:
    return Command(Path(program), folder / "home", folder, folder / "home" / "timer.log")


def schedule(adapter: str = "functions", tz: str | None = None) -> Schedule:
    values = {"adapter": adapter, "recipe": adapter, "cron": "7 3 * * *", "tz": tz or local_zone(), "if_new": 1}
    return Schedule.model_validate({**values, "starter": "crontab", "since": datetime.now(UTC)})


lines = st.lists(st.sampled_from([*OTHERS.splitlines(), b"", b"# pocketloop schedule", b"\r", b"x\x0by"]), max_size=8)
tables = st.one_of(st.binary(max_size=200), lines.map(b"\n".join))
names = st.sampled_from(["pocketloop-functions-0a", "pocketloop-intent-0a", "pocketloop-functions-0b"])
entries = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=40), min_size=1, max_size=3)


@given(tables, names, entries, entries)
def test_other_entries_stay_byte_for_byte_whatever_is_written_changed_and_removed(
    table: bytes, name: str, one: list[str], two: list[str]
) -> None:
    assume(not any(line.startswith("# pocketloop schedule ") for line in one + two))
    written = with_entry(table, name, one)
    assert written.endswith(table)
    changed = with_entry(written, name, two)
    assert changed == with_entry(table, name, two)
    assert without_entry(changed, name) == table
    assert without_entry(table, name) == table


@given(tables, entries, st.permutations(["pocketloop-a-1", "pocketloop-b-1", "pocketloop-a-2"]))
def test_entries_of_several_schedules_come_and_go_in_any_order(
    table: bytes, entry: list[str], order: list[str]
) -> None:
    assume(not any(line.startswith("# pocketloop schedule ") for line in entry))
    written = table
    for name in ("pocketloop-a-1", "pocketloop-b-1", "pocketloop-a-2"):
        written = with_entry(written, name, entry)
    for name in order:
        written = without_entry(written, name)
    assert written == table


def test_an_entry_without_an_end_is_left_to_its_owner() -> None:
    broken = with_entry(OTHERS, "pocketloop-a-1", ["x"]).replace(b"# pocketloop schedule pocketloop-a-1 end\n", b"")
    with pytest.raises(ConfigError, match="has no end; mend it with `crontab -e`"):
        without_entry(broken, "pocketloop-a-1")


def test_the_crontab_gets_an_entry_and_an_entry_for_the_start_and_loses_both(cron: Path, tmp_path: Path) -> None:
    cron.write_bytes(OTHERS)
    Crontab().install(schedule(), command(tmp_path))
    Crontab().install(schedule("intent"), command(tmp_path))
    Crontab().install(schedule(), command(tmp_path))
    text = cron.read_bytes()
    assert text.endswith(OTHERS)
    assert (text.count(b"\n7 3 * * * cd "), text.count(b"@reboot cd ")) == (2, 2)
    assert text.count(f" schedule run functions >>{tmp_path}/home/timer.log 2>&1\n".encode()) == 2
    Crontab().remove("intent", tmp_path / "home")
    Crontab().remove("functions", tmp_path / "another home")
    assert b"schedule run functions" in cron.read_bytes()
    Crontab().remove("functions", tmp_path / "home")
    assert cron.read_bytes() == OTHERS


def test_a_user_without_a_crontab_gets_one(cron: Path, tmp_path: Path) -> None:
    Crontab().install(schedule(), command(tmp_path))
    assert cron.read_bytes().startswith(b"# pocketloop schedule pocketloop-functions-")
    Crontab().remove("functions", tmp_path / "home")
    assert cron.read_bytes() == b""


def test_the_shell_that_cron_starts_finds_program_home_and_folder_whatever_their_names(
    cron: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'it\'s 100% $HOME "night"'
    (folder / "home").mkdir(parents=True)
    program = folder / "pocketloop"
    program.write_text('#!/bin/sh\npwd\necho "$POCKETLOOP_HOME"\necho "$@"\n')
    program.chmod(0o755)
    Crontab().install(schedule(), command(folder, str(program)))
    line = next(line for line in cron.read_text().splitlines() if line.startswith("7 3 * * * "))
    # cron itself turns `\%` into `%` and ends the command at a bare one
    assert not line.replace("\\%", "").count("%")
    subprocess.run(["/bin/sh", "-c", line.removeprefix("7 3 * * * ").replace("\\%", "%")], check=True)
    said = (folder / "home" / "timer.log").read_text().splitlines()
    assert said == [str(folder), str(folder / "home"), "schedule run functions"]


def test_a_schedule_of_another_time_zone_is_looked_at_every_quarter_of_an_hour(cron: Path, tmp_path: Path) -> None:
    zone = "Asia/Kathmandu" if local_zone() != "Asia/Kathmandu" else "UTC"
    Crontab().install(schedule(tz=zone), command(tmp_path))
    assert b"\n7,22,37,52 * * * * cd " in cron.read_bytes()


def test_a_path_that_would_end_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="control signs"):
        command(tmp_path / "a\nb").checked()


def test_a_crontab_that_cannot_be_read_is_an_error_and_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "crontab").write_text("#!/bin/sh\necho 'you may not use this program' >&2; exit 1\n")
    (programs / "crontab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="crontab -l: you may not use this program"):
        Crontab().install(schedule(), command(tmp_path))


def test_systemd_is_taken_where_it_answers_else_cron_else_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, systemd in (("one", True), ("two", False)):
        for key, value in install_programs(tmp_path / name, systemd=systemd).items():
            monkeypatch.setenv(key, value)
        assert starter_here() == ("systemd" if systemd else "crontab")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="neither a systemd user session nor crontab is here"):
        starter_here()


def test_a_timer_of_systemd_is_written_started_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in install_programs(tmp_path, systemd=True).items():
        monkeypatch.setenv(key, value)
    folder = tmp_path / 'a "quoted" 100% $HOME'
    folder.mkdir()
    Systemd().install(schedule(), command(folder, "/opt/a b/pocketloop"))
    units = tmp_path / "config" / "systemd" / "user"
    name = unit_name("functions", folder / "home")
    service, timer = ((units / f"{name}.{suffix}").read_text() for suffix in ("service", "timer"))
    assert 'ExecStart="/opt/a b/pocketloop" schedule run functions\n' in service
    assert f'WorkingDirectory={tmp_path}/a "quoted" 100%% $HOME\n' in service
    assert f'Environment="POCKETLOOP_HOME={tmp_path}/a \\"quoted\\" 100%% $HOME/home"\n' in service
    assert f"OnCalendar=*-*-* 03:07:00 {local_zone()}\nPersistent=true\n" in timer
    asked = json.loads((tmp_path / "timers.json").read_text())
    assert asked == {f"{name}.timer": ["enable", "restart"]}
    Systemd().remove("functions", folder / "home")
    Systemd().remove("functions", folder / "home")
    assert json.loads((tmp_path / "timers.json").read_text())[f"{name}.timer"] == ["enable", "restart", "disable"]
    assert list(units.iterdir()) == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_itself_accepts_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in install_programs(tmp_path, systemd=True).items():
        monkeypatch.setenv(key, value)
    Systemd().install(schedule(), command(tmp_path, "/bin/true"))
    units = sorted((tmp_path / "config" / "systemd" / "user").iterdir())
    done = subprocess.run(["systemd-analyze", "--user", "verify", *units], text=True, capture_output=True, check=False)
    assert not [line for line in done.stderr.splitlines() if "pocketloop-" in line]
