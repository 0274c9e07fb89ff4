"""What a running server reports of itself beside its calls: the metrics page, open entries, its clock, as health."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import structlog

from godoty_service.clock_sync import OnMeasured, SynchronizedClock
from godoty_service.errors import GodotyError
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.oracle import Oracle
from godoty_service.recorder import Recorder
from godoty_service.rpc.health import ServingStatus
from godoty_service.settings import Settings
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.scrape import serve_metrics

log = structlog.get_logger(__name__)

_COUNT_INTERVAL = 15.0  # seconds between two counts of open ledger entries


async def count_entries(ledger: Ledger, recorder: Recorder) -> None:
    """Show the open entries on the metrics page, every 15 seconds."""
    while True:
        try:
            pending, unresolved = await ledger.count()
            recorder.ledger_counted(pending=pending, unresolved=unresolved)
        except GodotyError as error:
            log.warning("ledger_not_counted", error=str(error))
        await asyncio.sleep(_COUNT_INTERVAL)


def show_metrics(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, oracle: Oracle, *, shared: bool
) -> int | None:
    """Open the metrics page where one is asked for; return its port.

    Raises:
        ValueError: Its address cannot be listened on.
    """
    if shared:
        background(stack, _tell_age(metrics, oracle))
    else:
        metrics.watch_catalogue_age(lambda: _age(oracle))
    if not settings.metrics_listen:
        return None
    try:
        page = serve_metrics(
            listen=settings.metrics_listen,
            registry=metrics.page,
            shared=shared,
            timeout=settings.metrics_timeout,
        )
    except OSError as error:
        why = f"the address cannot be listened on: {error.strerror}."
        raise ValueError(f"GODOTY_METRICS_LISTEN={settings.metrics_listen}: {why}") from error
    stack.push_async_callback(page.close)
    return page.port


async def _tell_age(metrics: Metrics, oracle: Oracle) -> None:
    """Show the catalogue's age on the page that workers share."""
    while True:
        metrics.catalogue_age(_age(oracle))
        await asyncio.sleep(_COUNT_INTERVAL)


def report_clock(recorder: Recorder, status: ServingStatus) -> OnMeasured:
    """Build what shows each measurement of the system clock, on the metrics page and as health."""

    async def report(clock: SynchronizedClock) -> None:
        recorder.clock_measured(clock.offset, within_tolerance=clock.within_tolerance)
        status.clock_measured(within_tolerance=clock.within_tolerance)

    return report


def _age(oracle: Oracle) -> float:
    """Return the catalogue's age in seconds, or infinity if none was fetched."""
    age = oracle.age()
    return float("inf") if age is None else age


def background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run a loop beside the server, and end it with it."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
