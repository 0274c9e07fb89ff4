"""The composition root: everything is built here, started, drained and closed here, and nowhere else."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import structlog
from godoty.v1 import agent_service_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer  # as aio, the stubs hide it
from opentelemetry.sdk.trace.export import SpanExporter

from godoty_service.agents.profile import assistant
from godoty_service.agents.tracing import install_tracer
from godoty_service.clock import utc_now
from godoty_service.errors import GodotyError
from godoty_service.ids import new_id
from godoty_service.metering import ledger as ledgers
from godoty_service.metering import oracle as oracles
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.oracle import Oracle
from godoty_service.mongo import Database, open_database
from godoty_service.openrouter.account import Account
from godoty_service.openrouter.client import open_client
from godoty_service.recorder import Recorder
from godoty_service.rpc.agent_service import SCOPES, SERVICE_NAME, AgentService
from godoty_service.rpc.edge import Edge
from godoty_service.rpc.reflection import add_reflection
from godoty_service.sessions import messages as message_stores
from godoty_service.sessions import replicas as replica_stores
from godoty_service.sessions import store as session_stores
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.store import Sessions
from godoty_service.settings import Settings
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.scrape import serve_metrics
from godoty_service.telemetry.traces import open_tracing
from godoty_service.tenancy import keys as key_stores
from godoty_service.tenancy.keys import ApiKeys
from godoty_service.turns.runner import TurnRunner
from godoty_service.turns.turns import Turns
from godoty_service.turns.workbench import TurnDefaults, Workbench

log = structlog.get_logger(__name__)

_INDEXES = {
    "sessions": session_stores.INDEXES,
    "messages": message_stores.INDEXES,
    "replicas": replica_stores.INDEXES,
    "ledger": ledgers.INDEXES,
    "catalogues": oracles.INDEXES,
    "api_keys": key_stores.INDEXES,
}


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


async def open_indexed(settings: Settings) -> Database:
    """Open the database and make what indexes it lacks.

    Raises:
        StorageUnavailable: It cannot be reached.
        ValueError: The settings name none.
    """
    if not settings.mongodb_uri:
        raise ValueError("GODOTY_MONGODB_URI is not set: say where MongoDB is, or use `godoty dev`.")
    database = open_database(
        uri=settings.mongodb_uri,
        name=settings.mongodb_database,
        driver=settings.mongodb_driver,
        timeout=settings.storage_timeout,
    )
    await asyncio.gather(*(database.collection(name).ensure(indexes) for name, indexes in _INDEXES.items()))
    return database


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
    if settings.openrouter_api_key is None:
        raise ValueError("OPENROUTER_API_KEY is not set: name the account's key, or use `godoty dev`.")
    api_key = settings.openrouter_api_key.get_secret_value()
    async with AsyncExitStack() as stack:
        tracing = open_tracing(
            enabled=span_exporter is not None or settings.otlp_configured,
            trace_content=settings.trace_content,
            exporter=span_exporter,
        )
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        install_tracer(provider=tracing.provider, content=settings.trace_content)
        database = await open_indexed(settings)
        stack.push_async_callback(database.close)
        client = open_client(
            api_key=api_key,
            base_url=settings.openrouter_base_url,
            site_url=settings.site_url,
            app_name=settings.app_name,
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
        )
        stack.push_async_callback(client.close)

        account = Account(client)
        oracle = Oracle(
            database.collection("catalogues"),
            fetch_models=account.models,
            fetch_endpoints=account.endpoints,
            keep_for=timedelta(seconds=settings.catalogue_refresh),
        )
        await oracle.load()
        if not await oracle.refresh() and oracle.current is None:
            log.warning("no_catalogue", note="calls are not priced and models not checked until it is fetched")
        replicas = Replicas(
            database.collection("replicas"), replica_id=new_id("replica"), lease=timedelta(seconds=settings.lease)
        )
        await replicas.beat()
        stack.push_async_callback(_quietly, replicas.stop)
        _background(stack, oracle.run(settings.catalogue_refresh))
        _background(stack, replicas.run(settings.heartbeat))

        ledger = Ledger(database.collection("ledger"))
        sessions = Sessions(database.collection("sessions"), replicas=replicas)
        messages = MessageStore(database.collection("messages"))
        metrics = Metrics(methods=SCOPES)
        metrics.watch_catalogue_age(lambda: oracle.age() or float("nan"))
        bench = Workbench(
            sessions=sessions,
            messages=messages,
            replicas=replicas,
            ledger=ledger,
            oracle=oracle,
            client=client,
            provider_key_id=_key_id(api_key),
            profile=assistant(clock=utc_now),
            defaults=TurnDefaults(model=settings.default_model, max_model_calls=settings.max_model_calls),
            observer=Recorder(metrics),
        )
        turns = Turns(TurnRunner(bench))
        service = AgentService(
            turns=turns,
            sessions=sessions,
            messages=messages,
            ledger=ledger,
            oracle=oracle,
            max_text_bytes=settings.max_text_bytes,
        )
        edge = Edge(scopes=SCOPES, keys=ApiKeys(database.collection("api_keys")), metrics=metrics, tracing=tracing)
        metrics_port = None
        if settings.metrics_listen:
            page = serve_metrics(listen=settings.metrics_listen, registry=metrics.registry)
            stack.push_async_callback(page.close)
            metrics_port = page.port
        address = await _serve(stack, settings, service=service, edge=edge, turns=turns)
        log.info("serving", address=address, replica_id=replicas.replica_id)
        yield Running(address=address, metrics_port=metrics_port, turns=turns, oracle=oracle, ledger=ledger)


async def _serve(stack: AsyncExitStack, settings: Settings, *, service: AgentService, edge: Edge, turns: Turns) -> str:
    """Open the listener; leaving the stack drains it first."""
    server = grpc.aio.server(
        interceptors=[edge],
        options=[
            ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it unseen
            ("grpc.max_receive_message_length", settings.max_request_bytes),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call] # generated
    status = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if settings.reflection:
        add_reflection(server, [SERVICE_NAME, health.SERVICE_NAME])
    host, _, port = settings.listen.rpartition(":")
    try:
        bound = server.add_insecure_port(settings.listen)
    except RuntimeError as error:
        raise ValueError(f"GODOTY_LISTEN={settings.listen}: the address cannot be listened on.") from error
    await server.start()
    for name in ("", SERVICE_NAME):
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain() -> None:
        await status.enter_graceful_shutdown()
        stopping = asyncio.create_task(server.stop(settings.drain_grace + 5.0))
        await turns.drain(settings.drain_grace)
        await stopping

    stack.push_async_callback(drain)
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


def _key_id(api_key: str) -> str:
    """Name a key without telling it."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:16]
