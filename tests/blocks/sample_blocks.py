"""Blocks that the tests run; importable, so that other processes can unpickle them."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from pocketloop.contracts.errors import DataError


class Count(PipelineStep):
    """Yields the numbers of this task's share of `upto`."""

    name = "count"

    def __init__(self, upto: int) -> None:
        super().__init__()
        self.upto = upto

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        for number in range(rank, self.upto, world_size):
            yield Document(text=str(number), id=str(number))


class Square(PipelineStep):
    """Squares each number; refuses the ones in `fails` for as long as the file `broken` stands."""

    name = "square"

    def __init__(self, fails: tuple[int, ...] = (), broken: Path | None = None, how: str = "data") -> None:
        super().__init__()
        self.fails = fails
        self.broken = broken
        self.how = how

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        for document in data:
            if int(document.text) in self.fails and self.broken and self.broken.exists():
                if self.how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise DataError("this number is refused") if self.how == "data" else ValueError("a bug")
            document.metadata["square"] = int(document.text) ** 2
            yield document


class Meet(PipelineStep):
    """Holds each task until `together` of them have begun: workers that run one at a time have one of them each."""

    name = "meet"

    def __init__(self, folder: Path, together: int) -> None:
        super().__init__()
        self.folder = folder
        self.together = together

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        (self.folder / str(rank)).touch()
        while len(list(self.folder.iterdir())) < self.together:
            time.sleep(0.05)
        yield from data


class Write(PipelineStep):
    """Writes what a task got, and who wrote it, to `folder`."""

    name = "write"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        squares = [document.metadata["square"] for document in data]
        node = ""
        try:
            import ray

            if ray.is_initialized():
                node = ray.get_runtime_context().get_node_id()
        except ImportError:
            pass
        said = {"squares": squares, "pid": os.getpid(), "node": node}
        (self.folder / f"{rank}.json").write_text(json.dumps(said))
        yield from ()
