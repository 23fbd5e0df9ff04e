"""Kill the publisher at every write: each device verifies a whole state at every moment, and the next run finishes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError
from tuf_device import Device
from tuf_repository import BASE, CONFIG, approve, digest_of, policy, propose, served

from pocketloop.contracts.home import Home
from pocketloop.delivery.repository import Repository

Operation = Callable[[Repository, Path], object]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository and a device that has synced with it."""
    folder = tmp_path_factory.mktemp("before")
    repository = served(folder)
    Device(folder / "device", repository.storage, repository.root_bytes()).sync("functions", BASE)
    return folder


def set_policy(repository: Repository, folder: Path) -> None:
    repository.set_policy(policy(2, stable=digest_of(1), canary=digest_of(2), canary_ppm=10_000, salt="s"))


def publish(repository: Repository, folder: Path) -> None:
    approve(repository, folder, 3)


def revoke(repository: Repository, folder: Path) -> None:
    repository.propose_revocation(digest_of(1), "it crashes")
    assert repository.sign().complete
    repository.publish()


def rotate_online(repository: Repository, folder: Path) -> None:
    repository.rotate("online")


def rotate_lost_online(repository: Repository, folder: Path) -> None:
    (folder / "home" / "keys" / "online.pem").unlink(missing_ok=True)
    repository.rotate("online")


def rotate_reviewer(repository: Repository, folder: Path) -> None:
    if any(key.name == "reviewer-2" for role in repository.status().roles for key in role.keys):
        repository.rotate("reviewer-2")


def rotate_roots(repository: Repository, folder: Path) -> None:
    repository.rotate("root")


def rotate_everything(repository: Repository, folder: Path) -> None:
    """All keys in one proposal, as after a burglary."""
    propose(repository, folder, 3)
    for name in ("root", "reviewers", "online"):
        repository.rotate(name)
    assert repository.sign().complete
    repository.publish()


def refresh(repository: Repository, folder: Path) -> None:
    now = repository.now()
    soon = min(repository.state().role(role).signed.expires for role in ("root", "stable", "channels"))
    repository.refresh(now + (soon - now) * 0.99)


OPERATIONS = [set_policy, publish, revoke, rotate_online, rotate_lost_online, rotate_reviewer, rotate_roots]
OPERATIONS += [rotate_everything, refresh]


def kill_at_write(folder: Path, operation: Operation, number: int, after: bool) -> bool:
    """Run the operation in a process that dies at its write `number`, before or after it; False: it finished."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            repository = Repository.open(CONFIG, Home(folder / "home"))
            writes = [0]

            def dying(write: Callable[..., None]) -> Callable[..., None]:
                def put(*arguments: object) -> None:
                    writes[0] += 1
                    if writes[0] == number and not after:
                        os._exit(9)
                    write(*arguments)
                    if writes[0] == number:
                        os._exit(9)

                return put

            repository.storage.put = dying(repository.storage.put)  # type: ignore[method-assign]
            repository.storage.put_file = dying(repository.storage.put_file)  # type: ignore[method-assign]
            operation(repository, folder)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), "the operation failed"
    return status == 9


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_device_verifies_a_whole_state_wherever_the_publisher_is_killed(
    before: Path, tmp_path: Path, operation: Operation, after: bool
) -> None:
    kills = refused = 0
    revoking = operation is revoke
    while True:
        folder = tmp_path / str(kills)
        shutil.copytree(before, folder, symlinks=True)
        killed = kill_at_write(folder, operation, kills + 1, after)
        repository = Repository.open(CONFIG, Home(folder / "home"))
        shutil.rmtree(folder / "device" / "targets")
        old = Device(folder / "device", repository.storage, repository.root_bytes())
        try:
            seen = old.sync("functions", BASE)
        except RepositoryError:
            refused += 1
        else:
            assert seen is not None and seen["stable"] == (
                None if seen["generation"] > 1 and revoking else digest_of(1)
            )
        if not killed:
            break
        if repository.publish() is False:
            operation(repository, folder)
        assert repository.proposal().versions == {}
        finished = old.sync("functions", BASE)
        assert finished == Device(folder / "fresh", repository.storage, repository.root_bytes()).sync("functions", BASE)
        shutil.rmtree(folder)
        kills += 1
    assert kills >= 3
    # Two files cannot change at once: without the old key, the moment between root and timestamp is refused.
    assert refused == (1 if operation is rotate_lost_online else 0)
