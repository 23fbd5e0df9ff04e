"""A small repository for tests: three reviewers, two of whom must sign, and two adapters of one channel."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from tuf_device import adapter_facts, companion

from pocketloop.contracts.delivery import BaseFacts, ChannelPolicy
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import DeliveryConfig
from pocketloop.delivery.repository import Repository

CONFIG = DeliveryConfig()
BASE_FILE = b"GGUF base" * 100
BASE = sha256(BASE_FILE).hexdigest()


def adapter_file(folder: Path, version: int) -> Path:
    path = folder / f"adapter-{version}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF adapter %d" % version * 100)
    return path


def digest_of(version: int) -> str:
    return sha256(b"GGUF adapter %d" % version * 100).hexdigest()


def propose(repository: Repository, folder: Path, version: int) -> str:
    repository.propose_adapter(adapter_file(folder, version), companion(), adapter_facts(BASE, str(version)))
    return digest_of(version)


def approve(repository: Repository, folder: Path, version: int) -> str:
    """Propose, sign with every key here, publish."""
    digest = propose(repository, folder, version)
    assert repository.sign().complete
    repository.publish()
    return digest


def policy(generation: int, **fields: object) -> ChannelPolicy:
    return ChannelPolicy(
        adapter="functions", base_digest=BASE, generation=generation, updated=datetime.now(UTC), **fields
    )


def served(folder: Path) -> Repository:
    """A repository whose channel serves version 1 to everybody; version 2 is approved, too."""
    home = Home(folder / "home")
    repository = Repository.create(CONFIG, home)
    base = folder / "base.gguf"
    base.write_bytes(BASE_FILE)
    repository.propose_base(base, BaseFacts(base="tiny", quantization="Q4_K_M", parameters=4_000_000))
    approve(repository, folder, 1)
    approve(repository, folder, 2)
    repository.set_policy(policy(1, stable=digest_of(1)))
    return repository
