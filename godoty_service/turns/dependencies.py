"""The collaborators of turns: `server.py` builds them once, and all turns of the server share them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from strands.types.tools import AgentTool

from godoty_service.actions.stores import ActionStores
from godoty_service.agents.mcp.toolbox import McpToolbox
from godoty_service.agents.output.schemas import OutputSchemas
from godoty_service.agents.profile import AgentDefaults
from godoty_service.agents.store import Agents
from godoty_service.agents.tools.outcomes import ToolKind, ToolOutcome
from godoty_service.attachments.attachments import Attachments, Fetch
from godoty_service.budgets.service import BudgetService
from godoty_service.clock import Clock, utc_now
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import ProviderError
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.metering.adjustments import Adjustments
from godoty_service.openrouter.client_pool import ClientPool
from godoty_service.openrouter.decoding.chunk import AnswerLimits
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.store import SessionStore
from godoty_service.tenancy.policies import Policies
from godoty_service.tenancy.turn_limits import TurnLimiter
from godoty_service.turns.cancellation import KeyMonitor
from godoty_service.turns.event_log.flusher import EventLogFlusher
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.session_deletion import SessionDeletions
from godoty_service.turns.turn_store import TurnStore
from godoty_service.users.references import UserReferences


class TurnObserver(Protocol):
    """Measures turns and calls; `server.py` provides one."""

    def running_turn(self) -> AbstractContextManager[None]:
        """Count a turn as running while the context is open."""

    def call_closed(self, call: ModelCall) -> None:
        """Count a call that was closed."""

    def call_ended(self, call: ModelCall) -> None:
        """Measure a call whose request has ended, whether its cost is known or not."""

    def cycle_ended(self, provider: str | None, duration: timedelta) -> None:
        """Measure a cycle of the agent's loop, whose model call this provider served."""

    def tool_called(self, kind: ToolKind, outcome: ToolOutcome, duration: timedelta) -> None:
        """Measure a tool call that has ended."""

    def provider_failed(self, error: ProviderError, *, provider_key_id: str) -> None:
        """Count a failure of the provider for a request with this key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDefaults:
    """What applies if a request and the tenant's policy set nothing.

    Attributes:
        model: The model of a new session.
        max_model_calls: The most model calls of a turn; a request can only lower it.
        summary_output_tokens: The most output tokens of a summary.
        tool_output_bytes: The most bytes of a tool result.
        answer_limits: The bounds of what is retained of an answer.
        agent: What applies if the agent's definition sets nothing.
        attachment_bytes: The most bytes of the attachments that a request to a model carries.
        pdf_parser: What reads documents.
    """

    model: str
    max_model_calls: int
    summary_output_tokens: int
    tool_output_bytes: int
    answer_limits: AnswerLimits
    agent: AgentDefaults
    attachment_bytes: int
    pdf_parser: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDependencies:
    """The collaborators of turns.

    Attributes:
        sessions: The sessions.
        leases: This server's leases on sessions.
        messages: The sessions' messages.
        replicas: This server's heartbeat.
        ledger: The ledger.
        totals_updater: Updates session totals outside a turn's own writes.
        oracle: Prices and bounds calls.
        adjustments: Settles calls that were closed too late.
        budget_service: The tenants' budgets.
        policies: The tenants' policies.
        turn_limiter: The tenants' rate and concurrency limits.
        key_monitor: Finds turns whose API key is no longer valid.
        turn_store: The turns' records.
        deletions: The deletions of sessions.
        users: The references of end users.
        log_flusher: Flushes the turns' event logs to the database.
        recovery: Ends turns of dead servers.
        client_pool: The provider clients, by tenant.
        agents: The tenants' agents.
        tools: The tools of the server, by name.
        mcp: The tools of the tenants' MCP servers.
        schemas: The output schemas of agents.
        actions: Where actions are stored.
        attachments: The tenants' attachments.
        fetch_file: Fetches the file at a URL for a tenant.
        defaults: What applies if a request sets nothing.
        observer: Measures turns and calls.
        clock: Returns the time that is recorded with calls.
    """

    sessions: SessionStore
    leases: LeaseHolders
    messages: MessageStore
    replicas: ReplicaHeartbeats
    ledger: Ledger
    totals_updater: SessionTotalsUpdater
    oracle: PricingOracle
    adjustments: Adjustments
    budget_service: BudgetService
    policies: Policies
    turn_limiter: TurnLimiter
    key_monitor: KeyMonitor
    turn_store: TurnStore
    deletions: SessionDeletions
    users: UserReferences
    log_flusher: EventLogFlusher
    recovery: Recovery
    client_pool: ClientPool
    agents: Agents
    tools: Mapping[str, AgentTool]
    mcp: McpToolbox
    schemas: OutputSchemas
    actions: ActionStores
    attachments: Attachments
    fetch_file: Fetch
    defaults: TurnDefaults
    observer: TurnObserver
    clock: Clock = utc_now
