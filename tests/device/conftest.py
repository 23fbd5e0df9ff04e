from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_cloud import WHOLE, FakeCloud, streamed
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
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


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeCloud]:
    fake = FakeCloud()

    async def completions(request: Request) -> Response:
        fake.asked.append(await request.json())
        fake.keys.append(request.headers["authorization"])
        return fake.respond(request)

    app = Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"])])
    with running(app) as address:
        fake.url = f"{address}/v1"
        yield fake


@pytest.fixture
def cloud(endpoint: FakeCloud) -> FakeCloud:
    endpoint.asked.clear()
    endpoint.keys.clear()
    endpoint.respond = lambda _: streamed(WHOLE)
    return endpoint
