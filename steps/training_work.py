"""Where a training run or an evaluation keeps what it would not do twice, until it has succeeded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pocketloop.contracts.errors import PocketloopError
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.home import Home


@contextmanager
def training_work(home: Home, adapter: str, *inputs: str) -> Iterator[Path]:
    """The work folder of training `adapter` from exactly these `inputs` (digests): checkpoints and finished stages.

    A run that was stopped finds it again as it left it. It goes when training has succeeded, and with it goes what
    earlier inputs of the same adapter have left; so an adapter has one such folder at most.

    Raises:
        PocketloopError: another process trains this adapter.
    """
    with _work(home.root / "training" / adapter, inputs, f"{adapter} is being trained") as folder:
        yield folder


@contextmanager
def evaluation_work(home: Home, adapter: str, *inputs: str) -> Iterator[Path]:
    """The same of evaluating `adapter`: what was answered so far.

    Raises:
        PocketloopError: another process evaluates this adapter.
    """
    with _work(home.root / "evaluation" / adapter, inputs, f"{adapter} is being evaluated") as folder:
        yield folder


@contextmanager
def _work(root: Path, inputs: tuple[str, ...], taken: str) -> Iterator[Path]:
    folder = root / sha256_text(canonical_json(inputs))[:16]
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise PocketloopError(f"{taken} by another process; wait until it is done") from None
    try:
        for other in root.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other)
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder)
    finally:
        lock.release()
