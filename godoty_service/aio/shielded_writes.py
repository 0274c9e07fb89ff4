"""Runs database writes that must finish even if the task that waits for them is cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from godoty_service.aio.tasks import retrieve_exception

T = TypeVar("T")


class ShieldedWrites:
    """The writes of one turn, each in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, write: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a write that `wait_all` waits for."""
        task = asyncio.create_task(write)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(retrieve_exception)  # its waiter may be cancelled
        return task

    async def shielded(self, write: Coroutine[Any, Any, T]) -> T:
        """Run a write and return its result; cancelling the wait does not cancel the write."""
        return await asyncio.shield(self.start(write))

    async def wait_all(self) -> None:
        """Wait for all writes, including those that start meanwhile. Never raises their errors, and cancels none."""
        while self._tasks:
            await asyncio.wait(self._tasks)
