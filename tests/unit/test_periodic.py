"""A periodic loop runs its work until cancelled, and goes on after a failure."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from godoty_service.aio.periodic import run_every
from godoty_service.errors import StorageUnavailable


def work_of(errors: list[Exception], done: asyncio.Event) -> Callable[[], Awaitable[None]]:
    """Return work that raises the errors one by one, then sets `done` and waits until it is cancelled."""

    async def work() -> None:
        if errors:
            raise errors.pop(0)
        done.set()
        await asyncio.Event().wait()

    return work


async def run_until(
    done: asyncio.Event, work: Callable[[], Awaitable[None]], *, interval: float, at_once: bool
) -> None:
    """Run a loop until `done` is set, and cancel it."""
    loop = asyncio.create_task(run_every(interval, work, failure="work_failed", at_once=at_once))
    await asyncio.wait_for(done.wait(), 30)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


async def test_failed_run_is_logged_and_repeated() -> None:
    """An error of ours is a warning, any other an error with its traceback; neither ends the loop."""
    done = asyncio.Event()
    with capture_logs() as logs:
        work = work_of([StorageUnavailable("away"), ValueError("wrong")], done)
        await run_until(done, work, interval=0.0, at_once=False)

    assert [(each["event"], each["log_level"]) for each in logs] == [
        ("work_failed", "warning"),
        ("work_failed", "error"),
    ]
    assert logs[0]["error"] == "away"
    assert logs[1]["exc_info"]


async def test_first_run_may_be_at_once() -> None:
    """With `at_once`, the first run does not wait for the interval."""
    done = asyncio.Event()

    await run_until(done, work_of([], done), interval=600.0, at_once=True)
