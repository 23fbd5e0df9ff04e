"""garak, the vulnerability scanner, in a Python environment of its own, made on first use (1.7 GB).

It needs other versions of openai and pydantic than the rest of the project. It is given the address of the served
adapter and writes its report files into a folder; nothing of pocketloop is imported there.
"""

from pathlib import Path

from pocketloop.models.environments import make_environment

_HERE = Path(__file__).parent
LOCK = _HERE / "requirements.lock"
_WANTED = _HERE / "requirements.in"


def garak_python(cache: Path | None = None) -> Path:
    """The interpreter that has garak, made if it is not there.

    Raises:
        ModelError: a package could not be installed; the log is named.
    """
    return make_environment("garak", _WANTED, LOCK, "garak", "garak", "a minute, 1.7 GB", cache)[0]
