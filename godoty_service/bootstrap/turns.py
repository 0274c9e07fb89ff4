"""Builds the turn service and starts its background loops."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

from strands.types.tools import AgentTool

from godoty_service.agents.mcp.toolbox import McpToolbox
from godoty_service.agents.output.schemas import OutputSchemas
from godoty_service.agents.profile import AgentDefaults
from godoty_service.attachments.attachments import Fetch
from godoty_service.bootstrap.components import Components
from godoty_service.bootstrap.provider import ProviderComponents
from godoty_service.call_metrics import CallMetrics
from godoty_service.openrouter.decoding.chunk import AnswerLimits
from godoty_service.reporting import background
from godoty_service.settings.settings import Settings
from godoty_service.turns.actions.service import ActionService
from godoty_service.turns.cancellation import KeyMonitor, TurnMonitor
from godoty_service.turns.dependencies import TurnDefaults, TurnDependencies
from godoty_service.turns.event_log.flusher import EventLogFlusher
from godoty_service.turns.event_log.retention import LogRetention
from godoty_service.turns.factory import TurnFactory
from godoty_service.turns.listing import TurnListing
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.resumption import RemoteTurnReader, TurnResumption
from godoty_service.turns.runner import TurnRunner
from godoty_service.turns.service import TurnService

_LIMITER_INTERVAL = 1.0  # seconds between two tries to release turns whose end the database did not store
_RETENTION_INTERVAL = 600.0  # seconds between two looks for logs of interrupted turns: less than any log's margin


def start_turns(
    stack: AsyncExitStack,
    settings: Settings,
    components: Components,
    provider: ProviderComponents,
    call_metrics: CallMetrics,
    *,
    tools: Mapping[str, AgentTool],
    mcp: McpToolbox,
    schemas: OutputSchemas,
    fetch_file: Fetch,
) -> TurnService:
    """Build the turn service, and start the loops that monitor its turns.

    Args:
        stack: Ends the loops.
        settings: The settings.
        components: The components.
        provider: The provider.
        call_metrics: Measures turns and calls.
        tools: The tools of the server, by name.
        mcp: The tools of the tenants' MCP servers.
        schemas: The output schemas of agents.
        fetch_file: Fetches the file at a URL for a tenant.
    """
    conversations, replicas = components.conversations, components.replicas
    log_flusher = EventLogFlusher(
        conversations.event_logs,
        writer=replicas.replica_id,
        expiry=conversations.turn_store.log_expiry,
        wants=components.webhooks.subscribers.wants,
    )
    key_monitor = KeyMonitor(components.tenancy.api_keys)
    recovery = build_recovery(components)
    dependencies = _dependencies(
        settings,
        components,
        provider,
        log_flusher=log_flusher,
        recovery=recovery,
        key_monitor=key_monitor,
        observer=call_metrics,
        tools=tools,
        mcp=mcp,
        schemas=schemas,
        fetch_file=fetch_file,
    )
    turns = _turn_service(settings, components, dependencies, recovery)
    background(stack, provider.read_pacer.run(turns.beginning))
    background(stack, log_flusher.run(settings.turn_log_interval))
    background(stack, turns.run(settings.turn_watch_interval))
    background(stack, turns.run_lost(settings.heartbeat))
    background(stack, key_monitor.run(settings.key_watch_interval, turns.all))
    background(stack, components.tenancy.turn_limiter.run(_LIMITER_INTERVAL))
    background(stack, conversations.leases.run(settings.heartbeat))
    background(stack, build_log_retention(settings, components).run(_RETENTION_INTERVAL))
    return turns


def build_actions(components: Components, turns: TurnService) -> ActionService:
    """Build the service of actions; sessions that go on by themselves do so by the turn service.

    Args:
        components: The components.
        turns: Starts turns.
    """
    conversations = components.conversations
    return ActionService(
        conversations.actions,
        sessions=conversations.sessions,
        keys=components.tenancy.api_keys,
        attachments=conversations.attachments.store,
        start=turns.start_detached,
        clock=components.clock,
    )


def build_log_retention(settings: Settings, components: Components) -> LogRetention:
    """Build what retains the logs of interrupted turns."""
    conversations = components.conversations
    return LogRetention(
        holders=conversations.sessions.holders,
        turn_store=conversations.turn_store,
        event_logs=conversations.event_logs,
        replicas=components.replicas,
        longest=timedelta(seconds=settings.action_retention),
        clock=components.clock,
    )


def build_recovery(components: Components) -> Recovery:
    """Build what ends the turns of dead servers."""
    conversations = components.conversations
    return Recovery(
        turn_store=conversations.turn_store,
        event_logs=conversations.event_logs,
        sessions=conversations.sessions,
        messages=conversations.messages,
        ledger=components.accounting.ledger,
        actions=conversations.actions,
        writer=components.replicas.replica_id,
        clock=components.clock,
        wants=components.webhooks.subscribers.wants,
    )


def _dependencies(
    settings: Settings,
    components: Components,
    provider: ProviderComponents,
    *,
    log_flusher: EventLogFlusher,
    recovery: Recovery,
    key_monitor: KeyMonitor,
    observer: CallMetrics,
    tools: Mapping[str, AgentTool],
    mcp: McpToolbox,
    schemas: OutputSchemas,
    fetch_file: Fetch,
) -> TurnDependencies:
    conversations, accounting, tenancy = components.conversations, components.accounting, components.tenancy
    return TurnDependencies(
        sessions=conversations.sessions,
        leases=conversations.leases,
        messages=conversations.messages,
        replicas=components.replicas,
        ledger=accounting.ledger,
        oracle=provider.oracle,
        adjustments=accounting.adjustments,
        totals_updater=accounting.totals_updater,
        budget_service=components.budgets.service,
        policies=tenancy.policies,
        turn_limiter=tenancy.turn_limiter,
        key_monitor=key_monitor,
        turn_store=conversations.turn_store,
        deletions=conversations.deletions,
        users=components.users.references,
        log_flusher=log_flusher,
        recovery=recovery,
        client_pool=provider.client_pool,
        agents=conversations.agents,
        tools=tools,
        mcp=mcp,
        schemas=schemas,
        actions=conversations.actions,
        attachments=conversations.attachments,
        fetch_file=fetch_file,
        defaults=_defaults(settings),
        observer=observer,
        clock=components.clock,
    )


def _defaults(settings: Settings) -> TurnDefaults:
    return TurnDefaults(
        model=settings.default_model,
        max_model_calls=settings.max_model_calls,
        summary_output_tokens=settings.summary_max_output_tokens,
        tool_output_bytes=settings.tool_output_bytes,
        answer_limits=AnswerLimits(
            text_bytes=settings.answer_text_bytes,
            tool_calls=settings.answer_tool_calls,
            tool_input_bytes=settings.answer_tool_input_bytes,
            reasoning_details=settings.answer_reasoning_details,
            reasoning_details_bytes=settings.answer_reasoning_details_bytes,
            drain_seconds=settings.answer_drain,
        ),
        agent=AgentDefaults(window_size=settings.history_messages, summarize=settings.history_summary),
        attachment_bytes=settings.attachment_request_bytes,
        pdf_parser=settings.pdf_parser,
    )


def _turn_service(
    settings: Settings, components: Components, dependencies: TurnDependencies, recovery: Recovery
) -> TurnService:
    conversations, replicas = components.conversations, components.replicas
    turn_store, event_logs = conversations.turn_store, conversations.event_logs
    monitor = TurnMonitor(turn_store=turn_store, replicas=replicas)
    heartbeat = timedelta(seconds=settings.stream_heartbeat)
    remote_reader = RemoteTurnReader(turn_store=turn_store, event_logs=event_logs, replicas=replicas, recovery=recovery)
    return TurnService(
        runner=TurnRunner(dependencies, TurnFactory(dependencies)),
        turn_store=turn_store,
        resumption=TurnResumption(
            remote_reader=remote_reader, monitor=monitor, heartbeat=heartbeat, clock=components.clock
        ),
        listing=TurnListing(
            turn_store=turn_store,
            event_logs=event_logs,
            holders=conversations.sessions.holders,
            ledger=components.accounting.ledger,
            replicas=replicas,
            recovery=recovery,
            users=components.users.references,
        ),
        monitor=monitor,
        replicas=replicas,
        recovery=recovery,
        clock=components.clock,
        max_duration=timedelta(seconds=settings.longest_turn),
        heartbeat=heartbeat,
    )
