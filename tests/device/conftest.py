from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World

from pocketloop.services.running import running


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A repository with two approved adapter files, read as a folder."""
    return World(tmp_path)


@pytest.fixture
def served(world: World) -> Iterator[World]:
    """The same over HTTP, with somebody in between who can be told to meddle."""
    with running(world.meddler) as address:
        world.address = address
        yield world
