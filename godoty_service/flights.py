"""Writes, or reads, that leave together: whoever comes while one is on its way shares the next.

A busy database answers one operation on twenty documents far sooner than twenty on one. Nobody waits where nothing is
on its way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Fly = Callable[[Sequence[Item]], Awaitable[Sequence[BaseException | None]]]


class Flights(Generic[Item]):
    """One after the other, each with all who wait when it leaves."""

    def __init__(self, fly: Fly[Item], *, most: int) -> None:
        """Build it.

        Args:
            fly: Writes or reads some items; tells for each what went wrong. What it raises went wrong for all.
            most: Items of one flight.
        """
        self._fly = fly
        self._most = most
        self._waiting: list[tuple[Item, asyncio.Future[None]]] = []
        self._flying: asyncio.Task[None] | None = None

    async def join(self, item: Item) -> None:
        """Have an item written, or read, with the next flight. One whose waiting is cancelled flies all the same.

        Raises:
            BaseException: What went wrong for this item.
        """
        landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, landed))
        if self._flying is None:
            self._flying = asyncio.create_task(self._run())
        await landed

    async def _run(self) -> None:
        try:
            while self._waiting:
                leaving, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._land(leaving)
        finally:
            self._flying = None
            for _, landed in self._waiting:  # the loop ends: nobody flies any more
                landed.cancel()

    async def _land(self, leaving: list[tuple[Item, "asyncio.Future[None]"]]) -> None:
        try:
            faults: Sequence[BaseException | None] = await self._fly([item for item, _ in leaving])
        except asyncio.CancelledError:
            for _, landed in leaving:
                landed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - each who waits is told
            faults = [error] * len(leaving)
        for (_, landed), fault in zip(leaving, faults, strict=True):
            if landed.done():  # its waiting was cancelled
                continue
            if fault is None:
                landed.set_result(None)
            else:
                landed.set_exception(fault)
