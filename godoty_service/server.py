"""The composition root of a server: everything is started, drained and closed here, and nowhere else."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import structlog
from godoty.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    billing_service_pb2,
    billing_service_pb2_grpc,
)
from grpc_health.v1 import health
from opentelemetry.sdk.trace.export import SpanExporter

from godoty_service.agents.profile import assistant
from godoty_service.agents.tracing import install_tracer
from godoty_service.collector import settle
from godoty_service.errors import GodotyError
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.oracle import Oracle
from godoty_service.openrouter.limits import AnswerLimits
from godoty_service.recorder import Recorder
from godoty_service.reporting import background, count_entries, report_clock, show_metrics
from godoty_service.rooms import ProviderRooms, Rooms, open_provider, open_rooms
from godoty_service.rpc import admin_service, agent_service, billing_service
from godoty_service.rpc.admin_service import AdminService
from godoty_service.rpc.agent_service import AgentService
from godoty_service.rpc.auth_throttle import AuthThrottle
from godoty_service.rpc.billing_service import BillingService
from godoty_service.rpc.call_adjuster import CallAdjuster
from godoty_service.rpc.connection_limits import ConnectionLimits, bounded_connections, raise_file_limit
from godoty_service.rpc.edge import Edge
from godoty_service.rpc.field_limits import FieldLimits
from godoty_service.rpc.health import ServingStatus
from godoty_service.rpc.keyless import KeylessCalls
from godoty_service.rpc.listener import bind
from godoty_service.rpc.reflection import add_reflection
from godoty_service.rpc.sources import Sources
from godoty_service.rpc.tenant_calls import TenantCalls
from godoty_service.settings import Settings
from godoty_service.start_checks import check_default_model
from godoty_service.storage_monitor import StorageMonitor
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.traces import Tracing, open_tracing
from godoty_service.turns.following import Following
from godoty_service.turns.journal import Journal
from godoty_service.turns.key_watch import KeyWatch
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.runner import TurnRunner
from godoty_service.turns.turns import Turns
from godoty_service.turns.watch import Watch
from godoty_service.turns.workbench import TurnDefaults, Workbench
from godoty_service.workers.worker import Worker

log = structlog.get_logger(__name__)

_SCOPES = agent_service.SCOPES | admin_service.SCOPES | billing_service.SCOPES
_SERVICES = (agent_service.SERVICE_NAME, admin_service.SERVICE_NAME, billing_service.SERVICE_NAME)
_DESCRIPTORS = tuple(
    service
    for file in (agent_service_pb2, admin_service_pb2, billing_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
_STOP_GRACE = 5.0  # seconds that calls other than turns get to finish
_GATE_INTERVAL = 1.0  # seconds between two tries to let turns out whose end the database did not take


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
async def running(
    settings: Settings,
    *,
    span_exporter: SpanExporter | None = None,
    worker: Worker | None = None,
    counts: Path | None = None,
) -> AsyncIterator[Running]:
    """Run a server for as long as the block does; leaving it drains the turns and closes everything.

    Args:
        settings: What the environment says.
        span_exporter: Where spans go instead of the endpoint that the standard OTLP variables name.
        worker: What this process is to a supervisor; its ports are shared. None: it is alone, and has them alone.
        counts: Where workers keep what they count for one page of metrics; None: there is none, or one of its own.

    Raises:
        StorageUnavailable: The database cannot be reached.
        ValueError: A setting is missing or wrong.
    """
    async with AsyncExitStack() as stack:
        tracing = _trace(stack, settings, exporter=span_exporter)
        metrics = Metrics(methods=_SCOPES, shared=counts)
        recorder = Recorder(metrics, service_key_id=settings.openrouter_key_id)
        rooms = await stack.enter_async_context(open_rooms(settings, on_alert=recorder.budget_reached))
        provider = await stack.enter_async_context(
            open_provider(settings, rooms, record=recorder.call_closed, on_rejected_list=metrics.price_list_rejected)
        )
        status = ServingStatus(("", *_SERVICES))
        storage = StorageMonitor(rooms.database.ping, timeout=settings.storage_probe_timeout)
        await _start_loops(stack, settings, rooms, provider, recorder)
        background(stack, rooms.clock.run(settings.heartbeat, on_measured=report_clock(recorder, status)))
        background(stack, storage.run(settings.storage_probe_interval, status.storage_probed))
        metrics_port = show_metrics(stack, settings, metrics, provider.oracle, shared=counts is not None)
        turns = _turns(stack, settings, rooms, provider, recorder)
        edge = _edge(settings, rooms, storage=storage, metrics=metrics, tracing=tracing)
        server = _server(settings, rooms, provider.oracle, turns=turns, edge=edge, shared=worker is not None)
        address = await _serve(stack, settings, server=server, rooms=rooms, status=status, turns=turns, worker=worker)
        log.info("serving", address=address, replica_id=rooms.replicas.replica_id, metrics_port=metrics_port)
        yield Running(
            address=address, metrics_port=metrics_port, turns=turns, oracle=provider.oracle, ledger=rooms.ledger
        )


def _trace(stack: AsyncExitStack, settings: Settings, *, exporter: SpanExporter | None) -> Tracing:
    """Send spans where somebody collects them."""
    tracing = open_tracing(
        enabled=exporter is not None or settings.otlp_configured,
        trace_content=settings.trace_content,
        exporter=exporter,
    )
    stack.push_async_callback(asyncio.to_thread, tracing.close, settings.trace_flush_timeout)
    install_tracer(provider=tracing.provider, content=settings.trace_content)
    return tracing


def _edge(settings: Settings, rooms: Rooms, *, storage: StorageMonitor, metrics: Metrics, tracing: Tracing) -> Edge:
    """Build what each call passes."""
    sources = Sources(settings.trusted_networks)
    return Edge(
        scopes=_SCOPES,
        keys=rooms.keys,
        sources=sources,
        throttle=AuthThrottle(lookups_per_second=settings.wrong_key_lookups),
        calls=TenantCalls(
            turn_methods=agent_service.TURN_METHODS,
            streams=settings.tenant_streams,
            others=settings.tenant_calls,
        ),
        limits=FieldLimits(_DESCRIPTORS, max_text_bytes=settings.max_text_bytes),
        storage=storage,
        keyless=KeylessCalls(
            sources=sources,
            per_source=settings.keyless_calls_per_source,
            most=settings.keyless_calls,
            request_timeout=settings.request_timeout,
        ),
        metrics=metrics,
        tracing=tracing,
        request_timeout=settings.request_timeout,
    )


def _server(
    settings: Settings, rooms: Rooms, oracle: Oracle, *, turns: Turns, edge: Edge, shared: bool
) -> grpc.aio.Server:
    """Build the gRPC server and what it serves."""
    agent = AgentService(
        turns=turns,
        sessions=rooms.sessions,
        messages=rooms.messages,
        deletions=rooms.deletions,
        ledger=rooms.ledger,
        oracle=oracle,
        max_text_bytes=settings.max_text_bytes,
        page_bytes=settings.page_bytes,
        content_bytes=settings.content_bytes,
    )
    admin = AdminService(
        administration=rooms.administration,
        adjuster=CallAdjuster(adjustments=rooms.adjustments, administration=rooms.administration),
        catalogue=lambda: oracle.current,
        page_bytes=settings.page_bytes,
        clock=rooms.clock,
    )
    billing = BillingService(
        usage=rooms.usage.query,
        pages=rooms.usage.pages,
        exports=rooms.usage.exports,
        budgets=rooms.spending,
        tenants=rooms.tenants,
        catalogue=lambda: oracle.current,
        page_bytes=settings.page_bytes,
    )
    server = grpc.aio.server(
        interceptors=[edge],
        options=[
            ("grpc.so_reuseport", int(shared)),  # off: a second server on the port must fail, not share it unseen
            *_connection_limits(settings).options(),
        ],
    )
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agent, server)  # type: ignore[no-untyped-call] # generated
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)  # type: ignore[no-untyped-call] # generated
    billing_service_pb2_grpc.add_BillingServiceServicer_to_server(billing, server)  # type: ignore[no-untyped-call] # generated
    return server


def _connection_limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(
        connections=bounded_connections(settings.max_connections, files=raise_file_limit(settings.open_files)),
        streams=settings.max_connection_streams,
        handshake=settings.handshake_timeout,
        idle=settings.connection_idle,
        age=settings.connection_age,
        grace=settings.connection_grace,
        keepalive_time=settings.keepalive_time,
        keepalive_timeout=settings.keepalive_timeout,
        ping_interval=settings.min_ping_interval,
        request_bytes=settings.max_request_bytes,
    )


async def _start_loops(
    stack: AsyncExitStack, settings: Settings, rooms: Rooms, provider: ProviderRooms, recorder: Recorder
) -> None:
    """Start what runs beside the turns: heartbeat, catalogue, reconciliation, roll-ups.

    Raises:
        ValueError: The default model is not in the catalogue that was fetched.
    """
    fetched, *_ = await asyncio.gather(
        _have_prices(provider.oracle), provider.accounts.learn_records(), rooms.replicas.beat()
    )
    stack.push_async_callback(_quietly, rooms.replicas.stop)
    if fetched:
        check_default_model(settings, provider.oracle.current)
    stack.push_async_callback(_quietly, rooms.keys.record_use)
    background(stack, rooms.keys.run(settings.key_use_interval))
    background(stack, rooms.replicas.run(settings.heartbeat))
    background(stack, provider.pace.run())
    background(stack, provider.oracle.run(settings.catalogue_refresh))
    background(stack, provider.reconciler.run(settings.reconcile_interval))
    background(stack, rooms.usage.booking.run(settings.rollup_interval))
    background(stack, count_entries(rooms.ledger, recorder))


async def _have_prices(oracle: Oracle) -> bool:
    """Fetch the catalogue, which also opens a connection to the provider; where that fails, take the one of last time.

    Returns:
        Whether it was fetched.

    Raises:
        GodotyError: The database does not keep it.
    """
    if await oracle.refresh():
        return True
    await oracle.load()
    if oracle.current is None:
        log.warning("no_catalogue", note="calls are not priced and models not checked until it is fetched")
    return False


def _answer_limits(settings: Settings) -> AnswerLimits:
    return AnswerLimits(
        text_bytes=settings.answer_text_bytes,
        tool_calls=settings.answer_tool_calls,
        tool_input_bytes=settings.answer_tool_input_bytes,
        reasoning_details=settings.answer_reasoning_details,
        reasoning_details_bytes=settings.answer_reasoning_details_bytes,
        drain_seconds=settings.answer_drain,
    )


def _turns(
    stack: AsyncExitStack, settings: Settings, rooms: Rooms, provider: ProviderRooms, recorder: Recorder
) -> Turns:
    """Lay out what turns work with, and start what looks after them."""
    writer = rooms.replicas.replica_id
    journal = Journal(rooms.chunks, writer=writer, expiry=rooms.records.log_expiry)
    recovery = Recovery(
        records=rooms.records,
        chunks=rooms.chunks,
        sessions=rooms.sessions,
        messages=rooms.messages,
        ledger=rooms.ledger,
        writer=writer,
    )
    key_watch = KeyWatch(rooms.keys)
    bench = Workbench(
        sessions=rooms.sessions,
        leases=rooms.leases,
        messages=rooms.messages,
        replicas=rooms.replicas,
        ledger=rooms.ledger,
        oracle=provider.oracle,
        adjustments=rooms.adjustments,
        spending=rooms.spending,
        policies=rooms.policies,
        gates=rooms.gates,
        key_watch=key_watch,
        records=rooms.records,
        deletions=rooms.deletions,
        journal=journal,
        recovery=recovery,
        accounts=provider.accounts,
        profile=assistant(clock=rooms.clock, window_size=settings.history_messages, summarize=settings.history_summary),
        defaults=TurnDefaults(
            model=settings.default_model,
            max_model_calls=settings.max_model_calls,
            summary_output_tokens=settings.summary_max_output_tokens,
            tool_output_bytes=settings.tool_output_bytes,
            answer_limits=_answer_limits(settings),
        ),
        observer=recorder,
        clock=rooms.clock,
    )
    following = Following(records=rooms.records, chunks=rooms.chunks, replicas=rooms.replicas, recovery=recovery)
    turns = Turns(
        runner=TurnRunner(bench),
        records=rooms.records,
        following=following,
        watch=Watch(records=rooms.records, replicas=rooms.replicas),
        replicas=rooms.replicas,
        recovery=recovery,
        longest=timedelta(seconds=settings.longest_turn),
        heartbeat=timedelta(seconds=settings.stream_heartbeat),
    )
    background(stack, journal.run(settings.turn_log_interval))
    background(stack, turns.run(settings.turn_watch_interval))
    background(stack, turns.run_lost(settings.heartbeat))
    background(stack, key_watch.run(settings.key_watch_interval, turns.all))
    background(stack, rooms.gates.run(_GATE_INTERVAL))
    background(stack, rooms.leases.run(settings.heartbeat))
    return turns


async def _serve(
    stack: AsyncExitStack,
    settings: Settings,
    *,
    server: grpc.aio.Server,
    rooms: Rooms,
    status: ServingStatus,
    turns: Turns,
    worker: Worker | None,
) -> str:
    """Open the listener, and be healthy once the other workers' are open, too; leaving the stack drains it first.

    Raises:
        Dismissed: The supervisor stops this worker before that.
    """
    status.add_to(server)
    if settings.reflection:
        add_reflection(server, [*_SERVICES, health.SERVICE_NAME], stopped=status.stopped)
    bound = bind(
        server,
        listen=settings.listen,
        certificates=settings.certificates,
        allow_plaintext=settings.allow_plaintext,
    )
    await server.start()

    async def drain() -> None:
        status.shut_down()
        # Meanwhile the listener tells new turns that it stops.
        await asyncio.gather(turns.drain(settings.drain_grace), rooms.deletions.stop(settings.drain_grace))
        status.end_watches()
        await server.stop(_STOP_GRACE)

    stack.push_async_callback(drain)
    if worker is not None:
        await worker.meet()
    status.open()
    host, _, port = settings.listen.rpartition(":")
    return f"{host}:{bound if port == '0' else port}"


async def serve(settings: Settings, *, worker: Worker | None = None, counts: Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then drain; a second signal ends the process at once.

    Args:
        settings: What the environment says.
        worker: What this process is to a supervisor, who also stops it, and alone ends it at once: signals often go
            to both of them.
        counts: As `running` takes it.

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
        settle()
        if worker is not None:
            background(stack, _until_dismissed(worker, stop))
        await stop.wait()
        log.info("stopping")


async def _until_dismissed(worker: Worker, stop: asyncio.Event) -> None:
    await worker.dismissed()
    stop.set()


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    """Do what is only a courtesy: a database that is gone must not keep the server from stopping."""
    with suppress(GodotyError):
        await work()
