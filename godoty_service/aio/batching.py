"""Batches concurrent operations: items that are submitted while a batch runs go into the next one.

A busy database answers one operation on twenty documents far sooner than twenty on one. An item that is submitted while
no batch runs does not wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
RunBatch = Callable[[Sequence[Item]], Awaitable[Sequence[BaseException | None]]]


class Batcher(Generic[Item]):
    """Runs one batch after another; each holds the items that were submitted before it starts.

    Invariant: at most one batch runs, and it runs in a task of its own, so that no caller's cancellation reaches the
    items of the others.
    """

    def __init__(self, run_batch: RunBatch[Item], *, max_size: int) -> None:
        """Create a batcher.

        Args:
            run_batch: Processes items and returns the error of each, or None. An exception it raises is the error of
                every item.
            max_size: Items of one batch.
        """
        self._run_batch = run_batch
        self._max_size = max_size
        self._pending: list[tuple[Item, asyncio.Future[None]]] = []
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> None:
        """Submit an item and wait for its batch. Cancelling the wait does not withdraw the item.

        Raises:
            BaseException: The item's error.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((item, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending[: self._max_size], self._pending[self._max_size :]
                await self._process(batch)
        finally:
            self._running = None
            for _, done in self._pending:  # the event loop ends: no further batch runs
                done.cancel()

    async def _process(self, batch: list[tuple[Item, "asyncio.Future[None]"]]) -> None:
        try:
            errors: Sequence[BaseException | None] = await self._run_batch([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        except Exception as failure:  # noqa: BLE001 - raised to each submitter
            errors = [failure] * len(batch)
        for (_, done), error in zip(batch, errors, strict=True):
            if done.done():  # its wait was cancelled
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
