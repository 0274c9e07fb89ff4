"""Reports the state of a running server beside its calls: the metrics page, pending entries, its clock."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

from godoty_service.aio.periodic import run_every
from godoty_service.call_metrics import CallMetrics
from godoty_service.cluster.clock_sync import OnMeasured, SynchronizedClock
from godoty_service.ledger.ledger import Ledger
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.rpc.keyless import ServingStatus
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.metrics_server import serve_metrics
from godoty_service.webhooks.backlog import Backlog
from godoty_service.webhooks.delivery import DeliveryState

_COUNT_INTERVAL = 15.0  # seconds between two counts of pending ledger entries


async def count_entries(ledger: Ledger, call_metrics: CallMetrics) -> None:
    """Count the pending and unresolved entries for the metrics page, every 15 seconds."""

    async def count() -> None:
        pending, unresolved = await ledger.count()
        call_metrics.ledger_counted(pending=pending, unresolved=unresolved)

    await run_every(_COUNT_INTERVAL, count, failure="ledger_not_counted", at_once=True)


def open_metrics_page(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, oracle: PricingOracle, *, shared: bool
) -> int | None:
    """Open the metrics page if the settings ask for one; return its port.

    Raises:
        ValueError: Its address cannot be listened on.
    """
    if shared:
        background(stack, _report_catalogue_age(metrics, oracle))
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


async def report_deliveries(backlog: Backlog, metrics: Metrics) -> None:
    """Measure the age of the oldest event that no webhook has taken, every 15 seconds."""

    async def report() -> None:
        metrics.webhook_oldest_pending((await backlog.oldest()).total_seconds())

    await run_every(_COUNT_INTERVAL, report, failure="webhooks_not_measured", at_once=True)


def count_attempts(metrics: Metrics) -> Callable[[DeliveryState], None]:
    """Return what counts an attempt to deliver an event, by the state of the delivery after it."""
    return lambda state: metrics.webhook_attempt("retry" if state is DeliveryState.PENDING else state.value)


async def _report_catalogue_age(metrics: Metrics, oracle: PricingOracle) -> None:
    """Set the catalogue's age on the page that workers share, every 15 seconds."""

    async def report() -> None:
        metrics.catalogue_age(_age(oracle))

    await run_every(_COUNT_INTERVAL, report, failure="catalogue_age_not_reported", at_once=True)


def report_clock(call_metrics: CallMetrics, status: ServingStatus) -> OnMeasured:
    """Return a callback that reports each measurement of the system clock, as metrics and as health."""

    async def report(clock: SynchronizedClock) -> None:
        call_metrics.clock_measured(clock.offset, within_tolerance=clock.within_tolerance)
        status.clock_measured(within_tolerance=clock.within_tolerance)

    return report


def _age(oracle: PricingOracle) -> float:
    """Return the catalogue's age in seconds, or infinity if none was fetched."""
    age = oracle.age()
    return float("inf") if age is None else age


def background(stack: AsyncExitStack, loop: Coroutine[Any, Any, None]) -> None:
    """Run a loop in a task, and cancel it when the stack closes."""
    task = asyncio.create_task(loop)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
