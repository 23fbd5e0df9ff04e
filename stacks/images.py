"""The images of steps, one for each kind: their names, which follow from what is in them, and how they are built."""

import os
import subprocess
from pathlib import Path

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.files import sha256_file, sha256_text
from pocketloop.contracts.home import project_root
from stacks.kinds import KINDS, Kind

_CODE = ("pocketloop", "steps", "pipelines", "stacks", "configs")
"""The folders that an image holds."""


def dockerfile(kind: Kind) -> str:
    """Path of a kind's Dockerfile, relative to the checkout, which is the context of its build."""
    return f"deploy/images/{kind}.Dockerfile"


def requirements(kind: Kind) -> list[str]:
    """Paths of the lists of a kind's packages; requirements.lock says which versions of them and of what they need."""
    return ["deploy/images/common.in", f"deploy/images/{kind}.in"]


def image_reference(kind: Kind, registry: str) -> str:
    """Name of a kind's image in a registry; its tag is the digest of locks, Dockerfile and code."""
    return f"{registry.rstrip('/')}/pocketloop-{kind}:{image_tag(kind)}"


def image_tag(kind: Kind) -> str:
    """12 digits of the digest of the locked packages, a dash, and as many of the Dockerfile and the code."""
    root = project_root()
    packages = [root / name for name in ("requirements.lock", *requirements(kind))]
    code = [f for room in _CODE for f in (root / room).rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    return f"{_digest(packages)}-{_digest([root / dockerfile(kind), *sorted(code)])}"


def commands(registry: str, push: bool) -> list[list[str]]:
    """The argument lists that build, and push, every kind's image; they run in the checkout."""
    made: list[list[str]] = []
    for kind in KINDS:
        name = image_reference(kind, registry)
        made.append(["docker", "build", "--file", dockerfile(kind), "--tag", name, "."])
        if push:
            made.append(["docker", "push", name])
    return made


def run_all(wanted: list[list[str]]) -> None:
    """Run commands in the checkout, one after the other.

    Raises:
        ConfigError: one failed; the ones after it are not run.
    """
    for command in wanted:
        try:
            ran = subprocess.run(command, cwd=project_root(), check=False, env={**os.environ, "DOCKER_BUILDKIT": "1"})
        except FileNotFoundError:
            raise ConfigError(
                f"{command[0]} is not installed here: build where it is, with {' '.join(command)}"
            ) from None
        if ran.returncode != 0:
            raise ConfigError(f"{' '.join(command)} ended with status {ran.returncode}")


def _digest(files: list[Path]) -> str:
    root = project_root()
    return sha256_text("\n".join(f"{f.relative_to(root).as_posix()} {sha256_file(f)}" for f in files))[:12]
