"""Runs work periodically in the background, whether or not a run fails."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from godoty_service.errors import GodotyError

log = structlog.get_logger(__name__)


async def run_every(
    interval: float,
    work: Callable[[], Awaitable[object]],
    *,
    failure: str,
    at_once: bool = False,
) -> NoReturn:
    """Run `work` every `interval` seconds until cancelled; log what it raises, and go on.

    An error of ours is logged as a warning, anything else as an error with its traceback: a fault in one run must not
    end the loop unnoticed.

    Args:
        interval: Seconds between the end of a run and the start of the next.
        work: What is run.
        failure: The log event of a run that failed.
        at_once: Run for the first time at once, not after an interval.
    """
    if at_once:
        await _run(work, failure)
    while True:
        await asyncio.sleep(interval)
        await _run(work, failure)


async def _run(work: Callable[[], Awaitable[object]], failure: str) -> None:
    try:
        await work()
    except GodotyError as error:
        log.warning(failure, error=str(error))
    except Exception:
        log.exception(failure)
