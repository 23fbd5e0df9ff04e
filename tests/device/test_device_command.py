"""`pocketloop device` as an app team tries it: real base, real adapters, real probes, a server on loopback."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pocketloop.cli import device
from pocketloop.contracts.delivery import AdapterFacts, ChannelPolicy, Companion
from pocketloop.contracts.files import sha256_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_base_config
from pocketloop.contracts.rollout import DeliveryConfig
from pocketloop.delivery.repository import Repository
from pocketloop.export.base import PreparedBase, prepare_base
from pocketloop.services.cdn import create_app
from pocketloop.services.fleet_files import probed, random_adapter
from pocketloop.services.running import running

pytestmark = pytest.mark.slow
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> PreparedBase:
    return prepare_base(load_base_config("tiny"), "Q4_K_M", tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def published(home: Path, base: PreparedBase) -> Repository:
    """Three approved files: two that do what was recorded, and a third with the probes of the second."""
    (home / "bases").mkdir(parents=True)
    (home / "bases" / base.manifest.digest).symlink_to(base.folder)
    repository = Repository.create(DeliveryConfig(), Home(home))
    beside: Companion | None = None
    for seed in (1, 2, 3):
        file = random_adapter(base, home / f"{seed}.gguf", seed)
        if seed < 3:
            _, beside = probed(base, file, "functions", home / "probed")
        assert beside is not None
        facts = AdapterFacts(
            adapter="functions",
            version=str(seed),
            released=str(seed),
            bundle_digest="c" * 64,
            base_digest=base.manifest.digest,
            task="function_call",
        )
        repository.propose_adapter(file, beside, facts)
    repository.sign()
    repository.publish()
    return repository


@pytest.fixture
def command(published: Repository, home: Path) -> Iterator[Command]:
    app = typer.Typer()
    device.add_to(app)
    app.command("other")(lambda: None)  # a group of one command would lose its name
    runner = CliRunner()
    with running(create_app(home / "cdn")) as address:

        def run(*arguments: str, status: int = 0) -> Any:
            more = ["--repository", address] if arguments[0] == "sync" else []
            done = runner.invoke(app, ["device", *arguments, *more])
            assert done.exit_code == status, done.output
            return json.loads(done.output) if "--json" in arguments else done.output

        yield run


def serve(repository: Repository, base: PreparedBase, generation: int, stable: str, canary: str | None = None) -> None:
    repository.set_policy(
        ChannelPolicy(
            adapter="functions",
            base_digest=base.manifest.digest,
            generation=generation,
            stable=stable,
            canary=canary,
            canary_ppm=1_000_000 if canary else 0,
            salt="functions-1",
            updated=datetime.now(UTC),
        )
    )


def test_a_phone_takes_a_canary_that_works_and_refuses_one_that_does_not(
    command: Command, published: Repository, base: PreparedBase, home: Path
) -> None:
    first, second, third = (sha256_file(home / f"{seed}.gguf") for seed in (1, 2, 3))
    serve(published, base, 1, first)
    assert "functions installed" in command("sync", "--adapter", "functions")
    serve(published, base, 2, first, second)
    (done,) = command("sync", "--adapter", "functions", "--json")["adapters"]
    assert (done["action"], done["arm"], done["installed"]) == ("installed", "canary", second)
    serve(published, base, 3, first, third)
    text = command("sync", "--adapter", "functions")
    assert "does not work on this device" in text
    assert first[:12] in text
    (told,) = command("explain", "--json")
    assert told["bad"][third].endswith("of 8 golden probes fail")
    assert told["active"]["digest"] == first
    assert "arm 'canary'" in " ".join(command("explain").split())
    reports = json.loads((home / "device" / "telemetry.json").read_text())["counting"]
    assert [(report["digest"], report["reverts"]) for report in reports] == [(third, 1)]


def test_an_adapter_that_changes_nothing_is_refused(
    command: Command, published: Repository, base: PreparedBase, home: Path
) -> None:
    first = sha256_file(home / "1.gguf")
    serve(published, base, 1, first)
    command("sync", "--adapter", "functions")
    idle = home / "idle.gguf"
    idle.write_bytes(without_effect(home / "1.gguf"))
    _, beside = probed(base, idle, "functions", home / "probed")
    facts = published.approved()[first].model_copy(update={"version": "9"})
    published.propose_adapter(idle, beside, facts)
    published.sign()
    published.publish()
    serve(published, base, 2, sha256_file(idle))
    assert "8 of 8 golden probes fail" in command("sync", "--adapter", "functions")


def without_effect(file: Path) -> bytes:
    """The same adapter with all factors zero: it loads, and does nothing."""
    from gguf import GGUFReader

    data = bytearray(file.read_bytes())
    for tensor in GGUFReader(file).tensors:
        start, size = int(tensor.data_offset), int(tensor.n_bytes)
        data[start : start + size] = bytes(size)
    return bytes(data)


def test_errors_have_names_and_a_status(command: Command, published: Repository, base: PreparedBase) -> None:
    found = command("sync", "--adapter", "functions", "--json", status=1)
    assert found["adapters"][0]["error"] == "NoChannel"
    assert found["adapters"][0]["retry"] is True
    assert "NoChannel" in command("sync", "--adapter", "functions", status=1)


def test_chat_says_who_answered(command: Command, published: Repository, base: PreparedBase, home: Path) -> None:
    serve(published, base, 1, sha256_file(home / "1.gguf"))
    command("sync", "--adapter", "functions")
    reply = command("chat", "set a timer", "--no-cloud", "--json")
    assert reply["source"] == "device"
    assert reply["low_confidence"]
