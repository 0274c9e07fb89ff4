"""A priority admission queue: admits a bounded number of concurrent holders, first come, first served.

Run concurrently, the turns of a burst would all call their models only when the last of them is ready to. With one
queue before the first request and one before the end of a turn, a busy server calls models first and finishes turns
later.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_MAX_WAIT = 1.0  # seconds; a holder that hangs must not block the others


class AdmissionQueue:
    """Admits a bounded number of concurrent holders, in the order of their requests.

    Args:
        limit: The most concurrent holders.
        behind: A queue with priority: while it has a holder or a waiter, this queue admits one holder at a time.
    """

    def __init__(self, limit: int, *, behind: "AdmissionQueue | None" = None) -> None:
        self._limit = limit
        self._priority = behind
        self._on_release: list[Callable[[], None]] = []
        self._holders = 0
        self._overdue = 0  # those that went on without admission
        self._waiting: deque[asyncio.Future[None]] = deque()
        if behind is not None:
            behind.on_release(self._admit)

    async def acquire(self) -> Callable[[], None]:
        """Wait for admission, at most a second, and go on without it then.

        Returns:
            The release, which may be called more than once.
        """
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(admitted)
        self._admit()
        try:
            if not admitted.done():
                async with asyncio.timeout(_MAX_WAIT):
                    await admitted
        except TimeoutError:
            if not _is_admitted(admitted):
                self._withdraw(admitted)
                self._overdue += 1
                return _once(self._leave_overdue)
        except asyncio.CancelledError:
            if _is_admitted(admitted):
                self._release()
            else:
                self._withdraw(admitted)
            raise
        return _once(self._release)

    def __len__(self) -> int:
        """Return the number of holders and waiters, and of those that went on without admission."""
        return self._holders + len(self._waiting) + self._overdue

    @property
    def busy(self) -> bool:
        """Whether it has a holder or a waiter."""
        return self._holders > 0 or bool(self._waiting)

    def on_release(self, callback: Callable[[], None]) -> None:
        """Register a callback that runs when a holder releases, or a waiter gives up."""
        self._on_release.append(callback)

    def _release(self) -> None:
        self._holders -= 1
        self._admit()
        self._notify()

    def _leave_overdue(self) -> None:
        self._overdue -= 1

    def _withdraw(self, waiter: "asyncio.Future[None]") -> None:
        with suppress(ValueError):
            self._waiting.remove(waiter)
        self._notify()

    def _notify(self) -> None:
        for callback in self._on_release:
            callback()

    def _admit(self) -> None:
        limit = 1 if self._priority is not None and self._priority.busy else self._limit
        while self._waiting and self._holders < limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._holders += 1


def _is_admitted(waiter: "asyncio.Future[None]") -> bool:
    return waiter.done() and not waiter.cancelled()


def _once(release: Callable[[], None]) -> Callable[[], None]:
    """Return a release that works once, however often it is called."""
    holding = True

    def release_once() -> None:
        nonlocal holding
        if holding:
            holding = False
            release()

    return release_once
