"""What the publisher's own commands do, seen from a phone."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from world import BASE, companion, content, facts

from pocketloop.contracts.delivery import ChannelPolicy
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import DeliveryConfig
from pocketloop.delivery.repository import Repository
from pocketloop.device import errors
from pocketloop.device.store import Store
from pocketloop.device.sync import DeviceConfig, sync
from pocketloop.services.cdn import create_app
from pocketloop.services.running import running


@pytest.fixture
def publisher(tmp_path: Path) -> Repository:
    return Repository.create(DeliveryConfig(), Home(tmp_path / "home"))


@pytest.fixture
def device(tmp_path: Path, publisher: Repository) -> Iterator[DeviceConfig]:
    with running(create_app(Home(tmp_path / "home").cdn)) as address:
        yield DeviceConfig(
            folder=tmp_path / "phone",
            repository=address,
            device_id="phone-1",
            base_digest=BASE,
            root=publisher.root_bytes(),
            reserve=0,
        )


def release(publisher: Repository, folder: Path, name: str) -> str:
    path = folder / f"{name}.gguf"
    path.write_bytes(content(name))
    before = set(publisher.approved())
    publisher.propose_adapter(path, companion(), facts())
    publisher.sign()
    assert publisher.publish()
    (digest,) = set(publisher.approved()) - before
    return digest


def serve(publisher: Repository, generation: int, stable: str | None, canary: str | None = None, ppm: int = 0) -> None:
    publisher.set_policy(
        ChannelPolicy(
            adapter="functions",
            base_digest=BASE,
            generation=generation,
            stable=stable,
            canary=canary,
            canary_ppm=ppm,
            salt="rollout-1",
            updated=datetime.now(UTC),
        )
    )


def test_a_release_its_canary_its_rollback_and_its_revocation(
    publisher: Repository, device: DeviceConfig, tmp_path: Path
) -> None:
    with pytest.raises(errors.NoChannel):
        sync(device, "functions")
    first = release(publisher, tmp_path, "first")
    serve(publisher, 1, first)
    assert sync(device, "functions").action == "installed"
    second = release(publisher, tmp_path, "second")
    assert sync(device, "functions").action == "unchanged"  # approved is not served
    serve(publisher, 2, first, second, 1_000_000)
    assert sync(device, "functions").installed == second
    serve(publisher, 3, first)
    assert (sync(device, "functions").action, first) == ("reverted", running_file(device))
    publisher.propose_revocation(first, "it swears")
    publisher.sign()
    publisher.publish()
    assert sync(device, "functions").installed is None
    assert publisher.revoked() == {first: "it swears"}


def running_file(device: DeviceConfig) -> str | None:
    active = Store(device.folder).read().adapters["functions"].active
    return active.digest if active else None


def test_a_device_follows_every_rotation_and_renewal(
    publisher: Repository, device: DeviceConfig, tmp_path: Path
) -> None:
    first = release(publisher, tmp_path, "first")
    serve(publisher, 1, first)
    sync(device, "functions")
    for generation, name in enumerate(("online", "reviewer-1", "root-1"), start=2):
        publisher.rotate(name)
        if publisher.proposal().changes:
            publisher.sign()
            publisher.publish()
        serve(publisher, generation, first)
        assert sync(device, "functions").generation == generation
    later = datetime.now(UTC) + timedelta(days=1.9)
    assert publisher.refresh(later) is not None
    moved = DeviceConfig(**{**vars(device), "clock": lambda: later + timedelta(days=1)})
    assert sync(moved, "functions").action == "unchanged"
