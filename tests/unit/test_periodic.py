"""A periodic loop runs its work until cancelled, and goes on after a failure."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from godoty_service.aio.periodic import run_every
from godoty_service.errors import StorageUnavailable

HOUR = 3600.0


class Runs:
    """Work that counts its runs and raises the errors one by one.

    Attributes:
        count: The runs that have started.
        hold: A run that finds it cleared waits until it is set.
    """

    def __init__(self, *errors: Exception) -> None:
        self.count = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self._errors = list(errors)
        self._started = asyncio.Condition()

    async def __call__(self) -> None:
        """Run."""
        async with self._started:
            self.count += 1
            self._started.notify_all()
        await self.hold.wait()
        if self._errors:
            raise self._errors.pop(0)

    async def wait(self, count: int) -> None:
        """Wait until `count` runs have started."""
        async with self._started:
            await asyncio.wait_for(self._started.wait_for(lambda: self.count >= count), 180)


@asynccontextmanager
async def running(work: Callable[[], Awaitable[object]], interval: float, **options: Any) -> AsyncIterator[None]:
    """Run a loop while the block runs; its cancellation ends it."""
    loop = asyncio.create_task(run_every(interval, work, failure="work_failed", **options))
    try:
        yield
        assert not loop.done()
    finally:
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop


async def idle() -> None:
    """Let all tasks run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("options", "fault"),
    [({}, "work_failed"), ({"fault": "work_fault"}, "work_fault")],
    ids=["one event", "two events"],
)
async def test_failed_run_is_logged_and_repeated(options: dict[str, str], fault: str) -> None:
    """An error of ours is a warning, any other an error with its traceback, which may have an event of its own."""
    work = Runs(StorageUnavailable("away"), ValueError("wrong"))
    with capture_logs() as logs:
        async with running(work, 0.0, **options):
            await work.wait(3)

    assert [(each["event"], each["log_level"]) for each in logs] == [("work_failed", "warning"), (fault, "error")]
    assert logs[0]["error"] == "away"
    assert logs[1]["exc_info"]


async def test_failed_first_run_at_once_is_logged_and_repeated() -> None:
    """The first run has the same events as the others."""
    work = Runs(ValueError("wrong"))
    with capture_logs() as logs:
        async with running(work, 0.0, fault="work_fault", at_once=True):
            await work.wait(2)

    assert [each["event"] for each in logs] == ["work_fault"]


@pytest.mark.parametrize(("at_once", "count"), [(False, 0), (True, 1)])
async def test_first_run_is_after_the_interval_or_at_once(*, at_once: bool, count: int) -> None:
    """With `at_once`, the first run does not wait for the interval."""
    work = Runs()
    async with running(work, HOUR, at_once=at_once):
        await idle()

        assert work.count == count


async def test_interval_starts_at_the_end_of_a_run() -> None:
    """A run that takes longer than the interval is not overtaken by the next."""
    work = Runs()
    work.hold.clear()
    async with running(work, 0.01):
        await work.wait(1)
        await asyncio.sleep(0.05)

        assert work.count == 1
        work.hold.set()
        await work.wait(2)


async def test_wake_starts_a_run_before_the_interval_has_passed() -> None:
    """One for each time that it is set, and none afterwards."""
    work, wake = Runs(), asyncio.Event()
    async with running(work, HOUR, wake=wake):
        await idle()
        assert work.count == 0
        for count in (1, 2):
            wake.set()
            await work.wait(count)
        await idle()

        assert work.count == 2


async def test_wake_during_a_run_starts_another_one() -> None:
    """What it was set for may have come after the run had looked."""
    work, wake = Runs(), asyncio.Event()
    work.hold.clear()
    async with running(work, HOUR, wake=wake):
        wake.set()
        await work.wait(1)
        wake.set()
        work.hold.set()
        await work.wait(2)


async def test_loop_with_a_wake_event_runs_at_its_interval() -> None:
    """An event that is never set changes nothing."""
    work = Runs()
    async with running(work, 0.01, wake=asyncio.Event()):
        await work.wait(3)


async def test_failed_run_waits_for_the_interval_although_it_was_woken() -> None:
    """A failure is not retried at once: the event is cleared when the run starts."""
    work, wake = Runs(StorageUnavailable("away")), asyncio.Event()
    async with running(work, HOUR, wake=wake):
        wake.set()
        await work.wait(1)
        await idle()

        assert work.count == 1


async def test_cancelled_run_ends_the_loop() -> None:
    """A cancellation is no failure: nothing is logged, and the loop ends."""
    work = Runs()
    work.hold.clear()
    with capture_logs() as logs:
        async with running(work, 0.0):
            await work.wait(1)

    assert logs == []
