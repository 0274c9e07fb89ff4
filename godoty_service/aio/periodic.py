"""Runs work periodically in the background, whether or not a run fails."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

import structlog

from godoty_service.errors import GodotyError

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[object]]


async def run_every(
    interval: float,
    work: Work,
    *,
    failure: str,
    fault: str | None = None,
    at_once: bool = False,
    wake: asyncio.Event | None = None,
) -> NoReturn:
    """Run `work` every `interval` seconds until cancelled; log what it raises, and go on.

    An error of ours is logged as a warning, anything else as an error with its traceback: a fault in one run must not
    end the loop unnoticed.

    Args:
        interval: Seconds between the end of a run and the start of the next.
        work: What is run.
        failure: The log event of a run that raised an error of ours.
        fault: The log event of a run that raised anything else; None: the same event.
        at_once: Run for the first time at once, not after an interval.
        wake: Starts the next run before the interval has passed; cleared when the run starts, so that an event set
            during a run starts another one.
    """
    if at_once:
        await _run(work, failure, fault or failure)
    while True:
        await _wait(interval, wake)
        await _run(work, failure, fault or failure)


async def _wait(interval: float, wake: asyncio.Event | None) -> None:
    if wake is None:
        await asyncio.sleep(interval)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(interval):
            await wake.wait()
    wake.clear()


async def _run(work: Work, failure: str, fault: str) -> None:
    try:
        await work()
    except GodotyError as error:
        log.warning(failure, error=str(error))
    except Exception:
        log.exception(fault)
