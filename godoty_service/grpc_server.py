"""Builds the gRPC server: its interceptor, its services and the limits of its connections."""

from collections.abc import Collection
from datetime import timedelta

import grpc
from godoty.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_definition_service_pb2,
    agent_definition_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    billing_service_pb2,
    billing_service_pb2_grpc,
)

from godoty_service.agents.mcp.toolbox import McpToolbox
from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.output.schemas import OutputSchemas
from godoty_service.aio.byte_limiter import ByteLimiter
from godoty_service.aio.limits import ConcurrencyLimiter
from godoty_service.bootstrap.components import Components
from godoty_service.bootstrap.session_copies import SessionCopyComponents
from godoty_service.mongo.monitor import StorageMonitor
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.rpc.admin import service as admin_service
from godoty_service.rpc.admin.service import AdminService, CallAdjuster
from godoty_service.rpc.agents import service as agent_definition_service
from godoty_service.rpc.agents.service import AgentDefinitionService
from godoty_service.rpc.auth_throttle import AuthThrottle, Sources
from godoty_service.rpc.billing import service as billing_service
from godoty_service.rpc.billing.service import BillingService
from godoty_service.rpc.conversations import service as agent_service
from godoty_service.rpc.conversations.attachment_codec import RequestLimits
from godoty_service.rpc.conversations.service import AgentService
from godoty_service.rpc.conversations.sessions import SessionReader
from godoty_service.rpc.interceptor import ServiceInterceptor
from godoty_service.rpc.keyless import KeylessCalls
from godoty_service.rpc.listener import ConnectionLimits, bounded_connections, raise_file_limit
from godoty_service.rpc.session_copies.exports import SessionExport
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.traces import Tracing
from godoty_service.turns.actions.service import ActionService
from godoty_service.turns.service import TurnService

_STALE_INTERVALS = 3  # of `catalogue_refresh`: a catalogue that was not confirmed since is stale
_MODULES = (agent_service, agent_definition_service, admin_service, billing_service)
SCOPES = {method: scopes for module in _MODULES for method, scopes in module.SCOPES.items()}
SERVICES = tuple(module.SERVICE_NAME for module in _MODULES)
_DESCRIPTORS = tuple(
    service
    for file in (agent_service_pb2, agent_definition_service_pb2, admin_service_pb2, billing_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)


def build_interceptor(
    settings: Settings, components: Components, *, storage: StorageMonitor, metrics: Metrics, tracing: Tracing
) -> ServiceInterceptor:
    """Build the interceptor of all calls."""
    sources = Sources(settings.trusted_networks)
    return ServiceInterceptor(
        scopes=SCOPES,
        while_suspended={*billing_service.SCOPES, *admin_service.WHILE_SUSPENDED},
        keys=components.tenancy.api_keys,
        sources=sources,
        throttle=AuthThrottle(lookups_per_second=settings.wrong_key_lookups),
        calls=ConcurrencyLimiter(
            turn_methods=agent_service.TURN_METHODS,
            streams=settings.tenant_streams,
            others=settings.tenant_calls,
        ),
        limits=RequestLimits(_DESCRIPTORS, max_text_bytes=settings.max_text_bytes),
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


def build_server(
    settings: Settings,
    components: Components,
    oracle: PricingOracle,
    *,
    turns: TurnService,
    copies: SessionCopyComponents,
    actions: ActionService,
    tools: Collection[str],
    mcp: McpToolbox,
    schemas: OutputSchemas,
    interceptor: ServiceInterceptor,
    shared: bool,
) -> grpc.aio.Server:
    """Build the gRPC server and its services.

    Args:
        settings: The settings.
        components: The components.
        oracle: Prices calls, and has the provider's models.
        turns: The turn service.
        copies: Make sessions from others.
        actions: The service of actions.
        tools: The names of the server's tools.
        mcp: The tools of MCP servers.
        schemas: The output schemas of agents.
        interceptor: Wraps all calls.
        shared: Whether other processes share the listener's port.
    """
    agent = _agent_service(settings, components, oracle, turns=turns, actions=actions, copies=copies, schemas=schemas)
    definitions = _agent_definition_service(settings, components, oracle, tools=tools, mcp=mcp, schemas=schemas)
    admin = _admin_service(settings, components, oracle)
    billing = _billing_service(settings, components, oracle)
    server = grpc.aio.server(
        interceptors=[interceptor],
        options=[
            ("grpc.so_reuseport", int(shared)),  # off: a second server on the port must fail, not share it silently
            *_connection_limits(settings).options(),
        ],
    )
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agent, server)  # type: ignore[no-untyped-call] # generated
    agent_definition_service_pb2_grpc.add_AgentDefinitionServiceServicer_to_server(definitions, server)  # type: ignore[no-untyped-call] # generated
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)  # type: ignore[no-untyped-call] # generated
    billing_service_pb2_grpc.add_BillingServiceServicer_to_server(billing, server)  # type: ignore[no-untyped-call] # generated
    return server


def _agent_service(
    settings: Settings,
    components: Components,
    oracle: PricingOracle,
    *,
    turns: TurnService,
    copies: SessionCopyComponents,
    actions: ActionService,
    schemas: OutputSchemas,
) -> AgentService:
    conversations = components.conversations
    limiter = ByteLimiter(settings.content_bytes)
    reader = SessionReader(
        sessions=conversations.sessions,
        messages=conversations.messages,
        ledger=components.accounting.ledger,
        users=components.users.references,
        page_bytes=settings.page_bytes,
        content_limiter=limiter,
    )
    return AgentService(
        turns=turns,
        forks=copies.forks,
        imports=copies.imports,
        actions=actions,
        agents=conversations.agents,
        schemas=schemas,
        sessions=conversations.sessions,
        reader=reader,
        exporter=SessionExport(conversations.messages, conversations.attachments, limiter, clock=components.clock),
        deletions=conversations.deletions,
        oracle=oracle,
        max_text_bytes=settings.max_text_bytes,
        page_bytes=settings.page_bytes,
        policies=components.tenancy.policies,
        catalogue_stale_after=timedelta(seconds=_STALE_INTERVALS * settings.catalogue_refresh),
        clock=components.clock,
        attachments=conversations.attachments,
        rules=AddressRules(settings.attachment_allowed_networks),
    )


def _agent_definition_service(
    settings: Settings,
    components: Components,
    oracle: PricingOracle,
    *,
    tools: Collection[str],
    mcp: McpToolbox,
    schemas: OutputSchemas,
) -> AgentDefinitionService:
    return AgentDefinitionService(
        mcp=components.mcp,
        toolbox=mcp,
        webhooks=components.webhooks,
        agents=components.conversations.agents,
        schemas=schemas,
        tools=tools,
        administration=components.administration,
        policies=components.tenancy.policies,
        catalogue=lambda: oracle.current,
        page_bytes=settings.page_bytes,
    )


def _admin_service(settings: Settings, components: Components, oracle: PricingOracle) -> AdminService:
    administration = components.administration
    return AdminService(
        administration=administration,
        user_erasure=components.user_erasure,
        adjuster=CallAdjuster(adjustments=components.accounting.adjustments, administration=administration),
        catalogue=lambda: oracle.current,
        page_bytes=settings.page_bytes,
        clock=components.clock,
    )


def _billing_service(settings: Settings, components: Components, oracle: PricingOracle) -> BillingService:
    usage = components.usage
    return BillingService(
        usage=usage.queries,
        pages=usage.pages,
        exports=usage.exports,
        budgets=components.budgets.service,
        tenants=components.tenancy.tenants,
        catalogue=lambda: oracle.current,
        page_bytes=settings.page_bytes,
    )


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
