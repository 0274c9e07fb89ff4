"""Probes the database, so that health reports an outage and calls fail at once instead of waiting for it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.errors import GodotyError, StorageUnavailable

log = structlog.get_logger(__name__)

_RETRY_AFTER = 1.0  # seconds
_RETRY_PAUSE = 0.1  # seconds from a ping that failed at once to the next
_MAX_PROBES = 8  # that wait for an answer concurrently
_LATE = 0.1  # seconds by which a timer ends too late if this process was paused


class StorageGuard:
    """Cancels a call when the database stops answering, unless it was released."""

    def __init__(self, task: "asyncio.Task[object]") -> None:
        self._task = task
        self._cancelling = task.cancelling()
        self._released = False
        self._tripped = False

    def release(self) -> None:
        """Do not cancel the call any more."""
        self._released = True

    def trip(self) -> None:
        """Cancel the call, unless it was released."""
        if not self._released and not self._tripped:
            self._tripped = True
            self._task.cancel()

    def caught(self) -> bool:
        """Return whether a cancellation that arrived is this guard's alone, and undo it."""
        if not self._tripped:
            return False
        self._tripped = False
        return self._task.uncancel() <= self._cancelling


class StorageMonitor:
    """Tracks whether the database answers.

    Attributes:
        available: Whether the last probe was answered in time.
    """

    def __init__(self, ping: Callable[[], Awaitable[None]], *, timeout: float) -> None:
        """Create a monitor; the database counts as available until a probe fails.

        Args:
            ping: Pings the database.
            timeout: Seconds in which a probe must be answered.
        """
        self._ping = ping
        self._timeout = timeout
        self._guards: set[StorageGuard] = set()
        self._probes: set[asyncio.Task[bool]] = set()
        self.available = True

    async def run(self, interval: float, on_probed: Callable[..., None]) -> None:
        """Probe the database every `interval` seconds until cancelled.

        Args:
            interval: Seconds between two probes.
            on_probed: Called with `available`, the result of each probe.
        """
        await run_every(interval, partial(self._check, on_probed), failure="database_not_probed", at_once=True)

    async def _check(self, on_probed: Callable[..., None]) -> None:
        available = await self.probe()
        if available != self.available:
            log.warning("database_answers" if available else "database_does_not_answer", timeout=self._timeout)
        self.available = available
        on_probed(available=available)
        if not available:
            for guard in list(self._guards):
                guard.trip()

    async def probe(self) -> bool:
        """Return whether the database answers in time. A late answer to an earlier probe counts as well."""
        if len(self._probes) < _MAX_PROBES:
            probe = asyncio.create_task(self._answered())
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        loop = asyncio.get_running_loop()
        for _ in range(2):
            end = loop.time() + self._timeout
            done, _ = await asyncio.wait(self._probes, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return any(each.result() for each in done)
            # After a pause of this process the timer ends before an answer is read: it is given the time anew.
            if loop.time() < end + _LATE:
                break
        return False

    async def _answered(self) -> bool:
        """Return whether a ping is answered. A ping that fails at once, as on a closed connection, is retried."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        while True:
            begun = loop.time()  # a ping of before a pause of this process may fail although the database answers
            try:
                await self._ping()
            except GodotyError:
                if begun >= end:
                    return False
                await asyncio.sleep(_RETRY_PAUSE)
            else:
                return True

    @contextmanager
    def guard(self) -> Iterator[StorageGuard]:
        """Refuse to run the block while the database does not answer, and cancel it if an outage is found meanwhile.

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
            guard.caught()  # in case the block swallowed the cancellation


def _unavailable() -> GodotyError:
    return StorageUnavailable("The database does not answer.", retry_after=_RETRY_AFTER)
