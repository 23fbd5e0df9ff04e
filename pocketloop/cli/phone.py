"""What the commands that act as a phone share: its folder, its base, its id and what it trusts."""

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery

if TYPE_CHECKING:
    from pocketloop.export.base import PreparedBase

Folder = Annotated[
    Path | None, typer.Option(help="The phone's own folder; by default `device/` in the project's state.")
]
BaseOption = Annotated[str, typer.Option(help="The base on this phone: a name of configs/bases/, or its digest.")]


def prepared_base(home: Home, name: str) -> "PreparedBase":
    """The prepared base with this name (the newest of several) or digest.

    Raises:
        ModelError: none is prepared here.
    """
    from pocketloop.export.base import open_base

    folders = sorted(home.bases.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in folders:
        found = open_base(path.parent)
        if name in (found.manifest.base, found.manifest.digest):
            return found
    raise ModelError(f"base {name!r} is not prepared in {home.bases}; run `pocketloop prepare-base {name}`")


def own_repository(home: Home) -> str:
    """Where phones find this project's repository.

    Raises:
        ConfigError: it lies where phones cannot read.
    """
    address = load_delivery().repository or str(home.cdn)
    if "://" in address and not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"phones read the repository over HTTP, not from {address}: give --repository the address of its CDN"
        )
    return address


def trusted_root(home: Home, folder: Path, given: Path | None) -> bytes:
    """The root that this phone trusts: given now, kept from an earlier sync, or of the project's own repository."""
    from pocketloop.contracts.files import atomic_file

    kept = folder / "root.json"
    if given is not None:
        if not given.is_file():
            raise ConfigError(f"--root {given}: no such file")
        data = given.read_bytes()
    elif kept.is_file():
        return kept.read_bytes()
    else:
        from pocketloop.delivery.repository import Repository

        data = Repository.open(load_delivery(), home).root_bytes()
    with atomic_file(kept) as temporary:
        temporary.write_bytes(data)
    return data


def device_id_of(folder: Path, given: str | None = None) -> str:
    """The phone's id: given now, kept from before, or drawn now."""
    from pocketloop.contracts.files import atomic_file

    path = folder / "device-id"
    if given is None and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    name = given or uuid.uuid4().hex
    with atomic_file(path) as temporary:
        temporary.write_text(name + os.linesep, encoding="utf-8")
    return name
