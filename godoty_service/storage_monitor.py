"""Probes the database, so that health reports one that does not answer, and calls do not queue behind it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from godoty_service.errors import GodotyError, StorageUnavailable

log = structlog.get_logger(__name__)

_RETRY_AFTER = 1.0  # seconds
_AGAIN = 0.1  # seconds from a ping that failed at once to the next
_MOST_PROBES = 8  # that wait for an answer at the same time
_SLACK = 0.1  # seconds more: after this process stood still, the timer ends before the answer is read


class StorageGuard:
    """A call that ends when the database stops answering, until it is released."""

    def __init__(self, task: "asyncio.Task[object]") -> None:
        self._task = task
        self._cancelling = task.cancelling()
        self._released = False
        self._tripped = False

    def release(self) -> None:
        """Let the call go on whatever the database does."""
        self._released = True

    def trip(self) -> None:
        """End the call, unless it is released."""
        if not self._released and not self._tripped:
            self._tripped = True
            self._task.cancel()

    def caught(self) -> bool:
        """Return whether a cancellation that arrived is this guard's alone, and take it back."""
        if not self._tripped:
            return False
        self._tripped = False
        return self._task.uncancel() <= self._cancelling


class StorageMonitor:
    """Knows whether the database answers.

    Attributes:
        available: Whether the last probe was answered in time.
    """

    def __init__(self, ping: Callable[[], Awaitable[None]], *, timeout: float) -> None:
        """Build it; the database counts as available until a probe fails.

        Args:
            ping: Reaches the database.
            timeout: Seconds in which a probe must be answered.
        """
        self._ping = ping
        self._timeout = timeout
        self._guards: set[StorageGuard] = set()
        self._probes: set[asyncio.Task[bool]] = set()
        self.available = True

    async def run(self, interval: float, on_probed: Callable[..., None]) -> None:
        """Probe the database every so many seconds, until cancelled.

        Args:
            interval: Seconds between two probes.
            on_probed: Called with `available`, the outcome of each.
        """
        while True:
            available = await self.probe()
            if available != self.available:
                log.warning("database_answers" if available else "database_does_not_answer", timeout=self._timeout)
            self.available = available
            on_probed(available=available)
            if not available:
                for guard in list(self._guards):
                    guard.trip()
            await asyncio.sleep(interval)

    async def probe(self) -> bool:
        """Return whether the database answers in time. An earlier probe that is answered late counts, too."""
        if len(self._probes) < _MOST_PROBES:
            probe = asyncio.create_task(self._answered())
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        for seconds in (self._timeout, _SLACK):
            done, _ = await asyncio.wait(self._probes, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return any(each.result() for each in done)
        return False

    async def _answered(self) -> bool:
        """Return whether a ping is answered. One that fails at once, as when a connection was closed, is repeated."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        while True:
            try:
                await self._ping()
            except GodotyError:
                if loop.time() >= end:
                    return False
                await asyncio.sleep(_AGAIN)
            else:
                return True

    @contextmanager
    def guard(self) -> Iterator[StorageGuard]:
        """Refuse the block while the database does not answer, and end it when that is found out in the middle.

        Raises:
            StorageUnavailable: The database does not answer.
        """
        if not self.available:
            raise _unavailable()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is served by a task")
        guard = StorageGuard(task)
        self._guards.add(guard)
        try:
            yield guard
        except asyncio.CancelledError:
            if guard.caught():
                raise _unavailable() from None
            raise
        finally:
            self._guards.discard(guard)
            guard.caught()  # where the block swallowed the cancellation


def _unavailable() -> GodotyError:
    return StorageUnavailable("The database does not answer.", retry_after=_RETRY_AFTER)
