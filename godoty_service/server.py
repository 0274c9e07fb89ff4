"""The composition root of a server: everything is started, drained and closed here, and nowhere else."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from godoty.v1 import admin_service_pb2_grpc, agent_service_pb2_grpc, billing_service_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer  # as aio, the stubs hide it
from opentelemetry.sdk.trace.export import SpanExporter

from godoty_service.agents.profile import assistant
from godoty_service.agents.tracing import install_tracer
from godoty_service.clock import utc_now
from godoty_service.errors import GodotyError
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.oracle import Oracle
from godoty_service.recorder import Recorder
from godoty_service.rooms import ProviderRooms, Rooms, open_provider, open_rooms
from godoty_service.rpc import admin_service, agent_service, billing_service
from godoty_service.rpc.admin_service import AdminService
from godoty_service.rpc.agent_service import AgentService
from godoty_service.rpc.billing_service import BillingService
from godoty_service.rpc.edge import Edge
from godoty_service.rpc.listener import bind
from godoty_service.rpc.reflection import add_reflection
from godoty_service.rpc.refusals import Refusals
from godoty_service.settings import Settings
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.scrape import serve_metrics
from godoty_service.telemetry.traces import open_tracing
from godoty_service.turns.following import Following
from godoty_service.turns.journal import Journal
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.runner import TurnRunner
from godoty_service.turns.turns import Turns
from godoty_service.turns.workbench import TurnDefaults, Workbench

log = structlog.get_logger(__name__)

_SCOPES = agent_service.SCOPES | admin_service.SCOPES | billing_service.SCOPES
_SERVICES = (agent_service.SERVICE_NAME, admin_service.SERVICE_NAME, billing_service.SERVICE_NAME)
_STOP_GRACE = 5.0  # seconds that calls other than turns get to finish
_COUNT_INTERVAL = 15.0  # seconds between two counts of open ledger entries


@dataclass(slots=True, kw_only=True)
class Running:
    """A server that serves.

    Attributes:
        address: host:port of its listener.
        metrics_port: The port of Prometheus' page, if there is one.
        turns: The turns that run in it.
        oracle: Its prices.
        ledger: Its ledger.
    """

    address: str
    metrics_port: int | None
    turns: Turns
    oracle: Oracle
    ledger: Ledger


@asynccontextmanager
async def running(settings: Settings, *, span_exporter: SpanExporter | None = None) -> AsyncIterator[Running]:
    """Run a server for as long as the block does; leaving it drains the turns and closes everything.

    Args:
        settings: What the environment says.
        span_exporter: Where spans go instead of the endpoint that the standard OTLP variables name.

    Raises:
        StorageUnavailable: The database cannot be reached.
        ValueError: A setting is missing or wrong.
    """
    async with AsyncExitStack() as stack:
        tracing = open_tracing(
            enabled=span_exporter is not None or settings.otlp_configured,
            trace_content=settings.trace_content,
            exporter=span_exporter,
        )
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        install_tracer(provider=tracing.provider, content=settings.trace_content)
        metrics = Metrics(methods=_SCOPES)
        recorder = Recorder(metrics, service_key_id=settings.openrouter_key_id)
        rooms = await stack.enter_async_context(open_rooms(settings))
        provider = await stack.enter_async_context(open_provider(settings, rooms, record=recorder.call_closed))
        await _start_loops(stack, settings, rooms, provider, recorder)
        oracle = provider.oracle
        metrics.watch_catalogue_age(lambda: oracle.age() or float("nan"))
        metrics_port = None
        if settings.metrics_listen:
            page = serve_metrics(listen=settings.metrics_listen, registry=metrics.registry)
            stack.push_async_callback(page.close)
            metrics_port = page.port
        turns = _turns(stack, settings, rooms, provider, recorder)
        agent = AgentService(
            turns=turns,
            sessions=rooms.sessions,
            messages=rooms.messages,
            records=rooms.records,
            chunks=rooms.chunks,
            ledger=rooms.ledger,
            oracle=oracle,
            max_text_bytes=settings.max_text_bytes,
        )
        admin = AdminService(administration=rooms.administration, catalogue=lambda: oracle.current)
        billing = BillingService(
            usage=rooms.usage.query, pages=rooms.usage.pages, budgets=rooms.spending, tenants=rooms.tenants
        )
        edge = Edge(
            scopes=_SCOPES,
            keys=rooms.keys,
            refusals=Refusals(longest=settings.refusal_delay),
            metrics=metrics,
            tracing=tracing,
        )
        server = grpc.aio.server(
            interceptors=[edge],
            options=[
                ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it unseen
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agent, server)  # type: ignore[no-untyped-call] # generated
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)  # type: ignore[no-untyped-call] # generated
        billing_service_pb2_grpc.add_BillingServiceServicer_to_server(billing, server)  # type: ignore[no-untyped-call] # generated
        address = await _serve(stack, settings, server=server, turns=turns)
        log.info("serving", address=address, replica_id=rooms.replicas.replica_id)
        yield Running(address=address, metrics_port=metrics_port, turns=turns, oracle=oracle, ledger=rooms.ledger)


async def _start_loops(
    stack: AsyncExitStack, settings: Settings, rooms: Rooms, provider: ProviderRooms, recorder: Recorder
) -> None:
    """Start what runs beside the turns: heartbeat, catalogue, reconciliation, roll-ups."""
    await provider.oracle.load()
    if not await provider.oracle.refresh() and provider.oracle.current is None:
        log.warning("no_catalogue", note="calls are not priced and models not checked until it is fetched")
    await rooms.replicas.beat()
    stack.push_async_callback(_quietly, rooms.replicas.stop)
    stack.push_async_callback(_quietly, rooms.keys.record_use)
    _background(stack, rooms.keys.run(settings.key_use_interval))
    _background(stack, rooms.replicas.run(settings.heartbeat))
    _background(stack, provider.pace.run())
    _background(stack, provider.oracle.run(settings.catalogue_refresh))
    _background(stack, provider.reconciler.run(settings.reconcile_interval))
    _background(stack, rooms.usage.booking.run(settings.rollup_interval))
    _background(stack, _count(rooms.ledger, recorder))


async def _count(ledger: Ledger, recorder: Recorder) -> None:
    """Show the open entries on the metrics page, for ever."""
    while True:
        try:
            pending, unresolved = await ledger.count()
            recorder.ledger_counted(pending=pending, unresolved=unresolved)
        except GodotyError as error:
            log.warning("ledger_not_counted", error=str(error))
        await asyncio.sleep(_COUNT_INTERVAL)


def _turns(
    stack: AsyncExitStack, settings: Settings, rooms: Rooms, provider: ProviderRooms, recorder: Recorder
) -> Turns:
    """Lay out what turns work with, and start what looks after them."""
    writer = rooms.replicas.replica_id
    journal = Journal(rooms.chunks, writer=writer, expiry=rooms.records.expiry)
    recovery = Recovery(
        records=rooms.records, chunks=rooms.chunks, sessions=rooms.sessions, ledger=rooms.ledger, writer=writer
    )
    bench = Workbench(
        sessions=rooms.sessions,
        messages=rooms.messages,
        replicas=rooms.replicas,
        ledger=rooms.ledger,
        oracle=provider.oracle,
        adjustments=rooms.adjustments,
        spending=rooms.spending,
        policies=rooms.policies,
        gates=rooms.gates,
        records=rooms.records,
        chunks=rooms.chunks,
        journal=journal,
        recovery=recovery,
        accounts=provider.accounts,
        profile=assistant(clock=utc_now, window_size=settings.history_messages, summarize=settings.history_summary),
        defaults=TurnDefaults(model=settings.default_model, max_model_calls=settings.max_model_calls),
        observer=recorder,
    )
    following = Following(records=rooms.records, chunks=rooms.chunks, replicas=rooms.replicas, recovery=recovery)
    turns = Turns(runner=TurnRunner(bench), records=rooms.records, following=following, replicas=rooms.replicas)
    _background(stack, journal.run(settings.turn_log_interval))
    _background(stack, turns.run(settings.turn_watch_interval))
    return turns


async def _serve(stack: AsyncExitStack, settings: Settings, *, server: grpc.aio.Server, turns: Turns) -> str:
    """Open the listener; leaving the stack drains it first."""
    status = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if settings.reflection:
        add_reflection(server, [*_SERVICES, health.SERVICE_NAME])
    bound = bind(
        server,
        listen=settings.listen,
        certificates=settings.certificates,
        allow_plaintext=settings.allow_plaintext,
    )
    await server.start()
    for name in ("", *_SERVICES):
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain() -> None:
        await status.enter_graceful_shutdown()
        await turns.drain(settings.drain_grace)  # meanwhile the listener tells new turns that it stops
        await server.stop(_STOP_GRACE)

    stack.push_async_callback(drain)
    host, _, port = settings.listen.rpartition(":")
    return f"{host}:{bound if port == '0' else port}"


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then drain; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    async with running(settings):
        await stop.wait()
        log.info("stopping")


def _background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run a loop beside the server, and end it with it."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    """Do what is only a courtesy: a database that is gone must not keep the server from stopping."""
    with suppress(GodotyError):
        await work()
