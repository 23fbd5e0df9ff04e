"""What several requests want kept goes to disk together: one flush serves all that came while the last one ran."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class GroupCommit(Generic[Item, Answer]):
    """Calls `keep` in a thread of its own with all items that wait; each submitter gets its own item's answer.

    Args:
        keep: gives an answer for each item, in order; what it raises, all submitters of these items get.
    """

    def __init__(self, keep: Callable[[list[Item]], list[Answer]]) -> None:
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, "commit")
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Hand an item to the next call of `keep`, and wait for its answer."""
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        return await done

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                answers = await loop.run_in_executor(self._thread, self._keep, [item for item, _ in group])
            except Exception as error:
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), answer in zip(group, answers, strict=True):
                if not done.done():  # its client may have gone away
                    done.set_result(answer)
