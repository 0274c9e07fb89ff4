"""The composition root of a server: it starts, drains and closes all components."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health
from opentelemetry.sdk.trace.export import SpanExporter

from godoty_service.agents.output.schemas import OutputSchemas
from godoty_service.agents.tools.registry import built_in_tools
from godoty_service.aio.gc import freeze_gc
from godoty_service.bootstrap.attachments import build_file_fetcher
from godoty_service.bootstrap.components import Components, open_components
from godoty_service.bootstrap.erasure import tenant_erasure
from godoty_service.bootstrap.fetch import open_fetcher
from godoty_service.bootstrap.mcp import open_toolbox
from godoty_service.bootstrap.provider import ProviderComponents, late_call_patience, open_provider
from godoty_service.bootstrap.session_copies import build_session_copies
from godoty_service.bootstrap.turns import build_actions, build_recovery, start_turns
from godoty_service.bootstrap.webhooks import build_loops
from godoty_service.call_metrics import CallMetrics
from godoty_service.cluster.worker import Worker
from godoty_service.errors import GodotyError
from godoty_service.grpc_server import SCOPES, SERVICES, build_interceptor, build_server
from godoty_service.ledger.ledger import Ledger
from godoty_service.mongo.monitor import StorageMonitor
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.price_sources import summarize
from godoty_service.reporting import (
    background,
    count_attempts,
    count_entries,
    open_metrics_page,
    report_clock,
    report_deliveries,
)
from godoty_service.rpc.keyless import ServingStatus
from godoty_service.rpc.listener import bind
from godoty_service.rpc.reflection import add_reflection
from godoty_service.settings.settings import Settings
from godoty_service.start_checks import check_default_model
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.strands_tracing import install_tracer
from godoty_service.telemetry.traces import Tracing, open_tracing
from godoty_service.turns.service import TurnService
from godoty_service.turns.session_deletion import SessionDeletions
from godoty_service.webhooks.outbox.publisher import Observe

log = structlog.get_logger(__name__)

_MCP_INTERVAL = 5.0  # seconds between two looks at the connections to MCP servers and their lists of tools
_SWEEP_INTERVAL = 30.0  # seconds between two deletions of attachments that have expired
_STOP_GRACE = 5.0  # seconds in which calls other than turns may finish


@dataclass(slots=True, kw_only=True)
class Running:
    """A running server.

    Attributes:
        address: host:port of its listener.
        metrics_port: The port of its metrics page, or None.
        turns: Its turn service.
        oracle: Its pricing oracle.
        ledger: Its ledger.
    """

    address: str
    metrics_port: int | None
    turns: TurnService
    oracle: PricingOracle
    ledger: Ledger


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    span_exporter: SpanExporter | None = None,
    worker: Worker | None = None,
    counts: Path | None = None,
    on_event: Observe | None = None,
) -> AsyncIterator[Running]:
    """Run a server while the block runs; at its end, drain the turns and close everything.

    Args:
        settings: The settings.
        span_exporter: Replaces the exporter that the standard OTLP variables configure.
        worker: This process as a worker, which shares its ports with others; None: it has no supervisor.
        counts: The directory in which workers share their counts for one metrics page; None: they are not shared.
        on_event: Called with each event that webhooks may be notified of, of all tenants; None: they are not shown.

    Raises:
        StorageUnavailable: The database cannot be reached.
        ValueError: A setting is missing or wrong.
    """
    async with AsyncExitStack() as stack:
        yield await _start(
            stack, settings, span_exporter=span_exporter, worker=worker, counts=counts, on_event=on_event
        )


async def _start(
    stack: AsyncExitStack,
    settings: Settings,
    *,
    span_exporter: SpanExporter | None,
    worker: Worker | None,
    counts: Path | None,
    on_event: Observe | None,
) -> Running:
    tracing = _start_tracing(stack, settings, exporter=span_exporter)
    metrics = Metrics(methods=SCOPES, shared=counts)
    call_metrics = CallMetrics(metrics, service_key_id=settings.openrouter_key_id)
    components = await stack.enter_async_context(
        open_components(settings, migrate=True, on_alert=call_metrics.budget_reached)
    )
    provider = await stack.enter_async_context(
        open_provider(
            settings, components, record=call_metrics.call_closed, on_rejected_list=metrics.price_list_rejected
        )
    )
    status = ServingStatus(("", *SERVICES))
    storage = StorageMonitor(components.database.ping, timeout=settings.storage_probe_timeout)
    await _start_loops(stack, settings, components, provider, call_metrics)
    background(stack, components.clock.run(settings.heartbeat, on_measured=report_clock(call_metrics, status)))
    background(stack, storage.run(settings.storage_probe_interval, status.storage_probed))
    metrics_port = open_metrics_page(stack, settings, metrics, provider.oracle, shared=counts is not None)
    fetcher = await stack.enter_async_context(open_fetcher(settings))
    tools = built_in_tools(clock=components.clock, fetcher=fetcher)
    mcp = await stack.enter_async_context(open_toolbox(settings, components.mcp))
    background(stack, mcp.run(_MCP_INTERVAL))
    files, schemas = build_file_fetcher(settings), OutputSchemas()
    turns = start_turns(
        stack, settings, components, provider, call_metrics, tools=tools, mcp=mcp, schemas=schemas, fetch_file=files
    )
    await _start_webhooks(stack, settings, components, on_event, metrics)
    copies = build_session_copies(settings, components)
    background(stack, copies.copies.run(settings.heartbeat))
    actions = build_actions(components, turns)
    background(stack, actions.run(settings.action_interval))
    interceptor = build_interceptor(settings, components, storage=storage, metrics=metrics, tracing=tracing)
    server = build_server(
        settings,
        components,
        provider.oracle,
        turns=turns,
        copies=copies,
        actions=actions,
        tools=tools.keys(),
        mcp=mcp,
        schemas=schemas,
        interceptor=interceptor,
        shared=worker is not None,
    )
    address = await _serve(
        stack, settings, server=server, components=components, status=status, turns=turns, worker=worker
    )
    log.info("serving", address=address, replica_id=components.replicas.replica_id, metrics_port=metrics_port)
    return Running(
        address=address,
        metrics_port=metrics_port,
        turns=turns,
        oracle=provider.oracle,
        ledger=components.accounting.ledger,
    )


def _start_tracing(stack: AsyncExitStack, settings: Settings, *, exporter: SpanExporter | None) -> Tracing:
    """Start to export spans, if an exporter is configured."""
    tracing = open_tracing(
        enabled=exporter is not None or settings.otlp_configured,
        trace_content=settings.trace_content,
        exporter=exporter,
    )
    stack.push_async_callback(asyncio.to_thread, tracing.close, settings.trace_flush_timeout)
    install_tracer(provider=tracing.provider, content=settings.trace_content)
    return tracing


async def _start_loops(
    stack: AsyncExitStack,
    settings: Settings,
    components: Components,
    provider: ProviderComponents,
    call_metrics: CallMetrics,
) -> None:
    """Start the background loops that do not concern turns: heartbeats, catalogue, reconciliation, roll-ups.

    Raises:
        SchemaError: A migration to a version that this build cannot read has begun.
        ValueError: The fetched catalogue does not list the default model.
    """
    stack.push_async_callback(_quietly, components.replicas.stop)
    background(stack, components.replicas.run(settings.heartbeat))  # the provider may take longer than a lease
    fetched, *_ = await asyncio.gather(
        _load_prices(provider.oracle), provider.client_pool.learn_records(), components.replicas.heartbeat()
    )
    await components.schema.require_not_newer()  # again: a migration may have begun before this server was visible
    if fetched:
        check_default_model(settings, provider.oracle.current)
    stack.push_async_callback(_quietly, components.tenancy.api_keys.record_use)
    background(stack, components.tenancy.api_keys.run(settings.key_use_interval))
    background(stack, provider.client_pool.run())
    background(stack, provider.oracle.run(settings.catalogue_refresh))
    background(stack, provider.reconciler.run(settings.reconcile_interval))
    background(stack, components.usage.rollup_job.run(settings.rollup_interval))
    erasure = tenant_erasure(components, delay=settings.erasure_delay, patience=late_call_patience(settings))
    background(stack, erasure.run(settings.erasure_interval))
    await components.users.stored_names.look_for_old_servers()
    background(stack, components.users.stored_names.run(settings.rollup_interval))
    background(stack, components.users.references.run())
    attachments, lists = components.conversations.attachments, components.conversations.sessions.lists
    background(stack, attachments.run(_SWEEP_INTERVAL, lists.existing))
    stack.push_async_callback(components.user_erasure.stop)
    background(stack, components.user_erasure.run(settings.heartbeat))
    background(stack, count_entries(components.accounting.ledger, call_metrics))


async def _start_webhooks(
    stack: AsyncExitStack, settings: Settings, components: Components, on_event: Observe | None, metrics: Metrics
) -> None:
    """Start to publish and deliver events, once it is known which tenants are notified."""
    subscribers = components.webhooks.subscribers
    subscribers.everyone = on_event is not None
    await subscribers.refresh()
    loops = build_loops(
        settings,
        components.webhooks,
        ledger=components.accounting.ledger,
        turn_store=components.conversations.turn_store,
        recovery=build_recovery(components),
        replicas=components.replicas,
        clock=components.clock,
        observe=on_event or (lambda _: None),
        observe_attempt=count_attempts(metrics),
    )
    background(stack, subscribers.run())
    background(stack, loops.outbox.run(settings.webhook_interval))
    background(stack, loops.dispatcher.run(settings.webhook_interval))
    background(stack, report_deliveries(loops.backlog, metrics))


async def _load_prices(oracle: PricingOracle) -> bool:
    """Fetch the catalogue, which also opens a connection to the provider; if that fails, load the last stored one.

    Returns:
        Whether it was fetched.

    Raises:
        GodotyError: The database fails.
    """
    fetched = await oracle.refresh()
    if not fetched:
        await oracle.load()
    if oracle.current is None:
        log.warning("no_catalogue", note="until it is fetched, calls are not priced and models not checked")
    else:
        log.info("catalogue", age_seconds=oracle.age(), **asdict(summarize(oracle.current)))
    return fetched


async def _serve(
    stack: AsyncExitStack,
    settings: Settings,
    *,
    server: grpc.aio.Server,
    components: Components,
    status: ServingStatus,
    turns: TurnService,
    worker: Worker | None,
) -> str:
    """Open the listener, and report healthy once all workers listen; closing the stack drains the server first.

    Raises:
        StopRequested: The supervisor stops this worker before that.
    """
    status.add_to(server)
    if settings.reflection:
        add_reflection(server, [*SERVICES, health.SERVICE_NAME], stopped=status.stopped)
    bound = bind(
        server,
        listen=settings.listen,
        certificates=settings.certificates,
        allow_plaintext=settings.allow_plaintext,
    )
    await server.start()
    stack.push_async_callback(_drain, settings.drain_grace, server, status, turns, components.conversations.deletions)
    if worker is not None:
        await worker.wait_for_peers()
    status.open()
    host, _, port = settings.listen.rpartition(":")
    return f"{host}:{bound if port == '0' else port}"


async def _drain(
    grace: float, server: grpc.aio.Server, status: ServingStatus, turns: TurnService, deletions: SessionDeletions
) -> None:
    """Refuse new turns, and stop once the running turns and deletions have finished, at most `grace` seconds later."""
    status.shut_down()
    # Meanwhile the listener refuses new turns, and says that it is stopping.
    await asyncio.gather(turns.drain(grace), deletions.stop(grace))
    status.end_watches()
    await server.stop(_STOP_GRACE)


async def serve(settings: Settings, *, worker: Worker | None = None, counts: Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then drain; a second signal ends the process at once.

    Args:
        settings: The settings.
        worker: This process as a worker. Only its supervisor ends it at once: signals are often sent to both of them.
        counts: See `running`.

    Raises:
        StorageUnavailable: The database cannot be reached.
        ValueError: A setting is missing or wrong.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set() and worker is None:
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    async with running(settings, worker=worker, counts=counts), AsyncExitStack() as stack:
        freeze_gc()
        if worker is not None:
            background(stack, _stop_when_requested(worker, stop))
        await stop.wait()
        log.info("stopping")


async def _stop_when_requested(worker: Worker, stop: asyncio.Event) -> None:
    await worker.wait_for_stop()
    stop.set()


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    """Do optional work at the stop: a database that cannot be reached must not fail it."""
    with suppress(GodotyError):
        await work()
