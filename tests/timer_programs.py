"""Small real programs named `crontab` and `systemctl` that keep files, for machines that have neither."""

import os
import sys
from pathlib import Path

CRONTAB = """#!{python}
import sys
from pathlib import Path
file = Path({file!r})
if sys.argv[1:] == ["-l"]:
    if not file.is_file():
        sys.exit("no crontab for somebody")
    sys.stdout.buffer.write(file.read_bytes())
elif sys.argv[1:] == ["-"]:
    file.write_bytes(sys.stdin.buffer.read())
else:
    sys.exit("unknown arguments")
"""
SYSTEMCTL = """#!{python}
import json, os, sys
from pathlib import Path
file = Path({file!r})
if sys.argv[1] != "--user" or file.with_suffix(".down").exists():
    sys.exit("Failed to connect to bus: No medium found")
timers = json.loads(file.read_text()) if file.is_file() else {{}}
verb, *rest = sys.argv[2:]
units = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user"
for name in (word for word in rest if not word.startswith("--")):
    if not (units / name).is_file():
        sys.exit(f"Unit file {{name}} does not exist.")
    timers[name] = timers.get(name, []) + [verb]
file.write_text(json.dumps(timers))
"""


def install_programs(folder: Path, *, systemd: bool) -> dict[str, str]:
    """Write the programs into `folder/bin`; gives the environment in which they, and only they, are found.

    `folder/crontab.txt` is the crontab, `folder/timers.json` what systemctl was asked by unit.
    """
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name, text, file in (("crontab", CRONTAB, "crontab.txt"), ("systemctl", SYSTEMCTL, "timers.json")):
        (programs / name).write_text(text.format(python=sys.executable, file=str(folder / file)))
        (programs / name).chmod(0o755)
    if not systemd:
        (folder / "timers.down").touch()
    return {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "XDG_CONFIG_HOME": str(folder / "config")}
