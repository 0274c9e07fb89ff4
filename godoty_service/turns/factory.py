"""Builds a turn's meter, model, agent and listeners."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from strands import Agent
from strands.types.agent import Limits

from godoty_service.agents.mcp.results import StoreImage
from godoty_service.agents.mcp.tools import MCP, OfferedTools, TurnConnections
from godoty_service.agents.tools.http_fetch import TENANT
from godoty_service.agents.tools.session_cost import SESSION_TOTALS, SessionTotalsReader
from godoty_service.budgets.turn_budget import TurnBudget
from godoty_service.errors import SessionLost
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.totals import SessionTotals
from godoty_service.metering.meter import TurnMeter, TurnScope
from godoty_service.openrouter.call_limits import CallLimits
from godoty_service.openrouter.model import LISTENER, OpenRouterModel
from godoty_service.pricing import money
from godoty_service.sessions.agent_states import METRICS_KEY
from godoty_service.sessions.session import Claim
from godoty_service.sessions.strands_session_manager import MongoSessionManager
from godoty_service.turns.actions.turn_actions import TurnActions, Used, less
from godoty_service.turns.agents.action_guard import ActionGuard
from godoty_service.turns.agents.agent import build_agent, release
from godoty_service.turns.agents.client_output import client_output
from godoty_service.turns.agents.listeners import CallAnnouncer, CallListener, ToolListener
from godoty_service.turns.agents.models import AgentCalls, build_model, fallback_models
from godoty_service.turns.agents.sub_agents import Caller, SubAgents, TurnParts
from godoty_service.turns.call_spans import CallSpans
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.event_log.answer_listener import AnswerListener
from godoty_service.turns.history import History, OverflowTrimmer
from godoty_service.turns.session_metrics import state_metrics, totals_with
from godoty_service.turns.turn import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A turn that is ready for its first request.

    Attributes:
        totals: The session's totals before the turn.
        manager: The session manager, with the loaded history.
        meter: Counts the turn's calls.
        model: The turn's model.
        agent: The turn's agent.
        trimmer: Makes the history fit the model.
        spans: The spans of the turn's calls.
        answer: Receives the model's answers.
        calls: Receives the events of the agent's loop.
        tools: Receives the tool calls.
        connections: The turn's connections to MCP servers.
        invocation: Strands' invocation state.
        actions: The actions of the turn.
        guard: Stands before the tool calls of the turn's own agent.
    """

    totals: SessionTotals
    manager: MongoSessionManager
    meter: TurnMeter
    model: OpenRouterModel
    agent: Agent
    trimmer: OverflowTrimmer
    spans: CallSpans
    answer: AnswerListener
    calls: CallListener
    tools: ToolListener
    connections: TurnConnections
    invocation: dict[str, Any]
    actions: TurnActions
    guard: ActionGuard

    def release(self) -> None:
        """Take the agent apart when its turn has ended."""
        release(self.agent, self.invocation)


class TurnFactory:
    """Builds the parts of turns from their collaborators."""

    def __init__(self, dependencies: TurnDependencies) -> None:
        self._dependencies = dependencies

    def prepare(
        self,
        turn: Turn,
        claim: Claim,
        totals: SessionTotals,
        history: History,
        *,
        offered: OfferedTools,
        on_request: Callable[[], None],
        store_image: StoreImage,
    ) -> Prepared:
        """Build the parts of a turn whose session is loaded.

        Args:
            turn: The turn.
            claim: The acquired session.
            totals: The session's totals.
            history: The history that the model sees.
            offered: The MCP tools that the agent may use.
            on_request: Called before each request to the model.
            store_image: Stores an image of a tool's result for the session.
        """
        manager = self._session_manager(turn, claim, history)
        answer = AnswerListener(
            turn.log,
            on_request=on_request,
            on_first_output=manager.write_pending,
            on_citations=manager.cite,
        )
        connections = self._dependencies.mcp.connections(store_image)
        invocation: dict[str, Any] = {LISTENER: answer, MCP: connections, TENANT: turn.tenant_id}
        spans = CallSpans(invocation)
        actions = self.actions(turn, claim)
        meter = self._meter(turn, claim, spans, last_number=totals.last_number, used=actions.used())
        session_totals = invocation[SESSION_TOTALS] = self._totals_reader(claim, totals, meter)
        calls = self._calls(turn, claim, meter, actions)
        model = build_model(self._dependencies, turn, claim.session, turn.agent, calls)
        tools = ToolListener(turn.log, observe=self._dependencies.observer.tool_called)
        listener = CallListener(turn.log, meter=meter, answer=answer, announcer=CallAnnouncer(turn.log, meter))
        metrics = state_metrics(totals)
        output_of = partial(client_output, self._dependencies.attachments.store)
        sub_agents = SubAgents(
            self._dependencies,
            TurnParts(
                turn=turn,
                session=claim.session,
                meter=meter,
                spans=spans,
                connections=connections,
                tools=tools,
                announcer=listener.announcer,
                metrics=metrics,
                session_totals=session_totals,
                actions=actions,
                output_of=output_of,
            ),
        )
        guard = ActionGuard(
            actions,
            turn.agent,
            schemas=self._dependencies.schemas,
            log=turn.log,
            output_of=output_of,
            manager=manager,
        )
        agent, trimmer = build_agent(
            self._dependencies,
            turn,
            claim.session,
            turn.agent,
            model=model,
            tools=[
                *turn.agent.tools,
                *sub_agents.tools(turn.agent, Caller.of_turn(turn.agent.name, calls.call_limits), guard),
            ],
            offered=offered,
            listener=tools,
            guard=guard,
            state={**claim.session.state, METRICS_KEY: metrics},
            manager=manager,
        )
        return Prepared(
            totals=totals,
            manager=manager,
            meter=meter,
            model=model,
            agent=agent,
            trimmer=trimmer,
            spans=spans,
            answer=answer,
            calls=listener,
            tools=tools,
            connections=connections,
            invocation=invocation,
            actions=actions,
            guard=guard,
        )

    def actions(self, turn: Turn, claim: Claim) -> TurnActions:
        """Return the actions of a turn."""
        parts = self._dependencies
        return TurnActions(parts.actions, turn, claim.session, flusher=parts.log_flusher, clock=parts.clock)

    def _session_manager(self, turn: Turn, claim: Claim, history: History) -> MongoSessionManager:
        """Build the turn's session manager."""
        return MongoSessionManager(
            self._dependencies.messages,
            claim.session,
            turn_id=turn.turn_id,
            head=history.head,
            messages=history.messages,
            last_number=history.last_number,
        )

    def _meter(self, turn: Turn, claim: Claim, spans: CallSpans, *, last_number: int, used: Used) -> TurnMeter:
        """Build the turn's meter.

        Args:
            turn: The turn.
            claim: The acquired session.
            spans: The spans of the turn's calls.
            last_number: The number of the session's last ledger entry.
            used: What the turns before this one have used of its limits.
        """
        dependencies = self._dependencies

        def on_end(call: ModelCall) -> None:
            spans.ended(call)
            dependencies.observer.call_ended(call)

        return TurnMeter(
            self._scope(turn, claim),
            ledger=dependencies.ledger,
            oracle=dependencies.oracle,
            adjustments=dependencies.adjustments,
            last_number=last_number,
            record=dependencies.observer.call_closed,
            check_lease=lambda: self._check_permit(turn),
            turn_budget=TurnBudget(
                dependencies.budget_service, budgets=turn.policy.budgets, max_cost=max_cost(turn, used)
            ),
            clock=dependencies.clock,
            keeps_records=dependencies.client_pool.keeps_records,
            on_opened=spans.opened,
            on_ended=on_end,
        )

    def _totals_reader(self, claim: Claim, totals: SessionTotals, meter: TurnMeter) -> SessionTotalsReader:
        """Return what returns the session's totals, the turn's calls until then included."""
        return lambda: totals_with(self._dependencies.ledger, claim.session, totals, meter.entries)

    def _calls(self, turn: Turn, claim: Claim, meter: TurnMeter, actions: TurnActions) -> AgentCalls:
        """Return how the turn's agent calls its model."""
        call_limits = CallLimits(
            model_calls=less(
                max_model_calls(turn, self._dependencies.defaults.max_model_calls), actions.used().model_calls
            ),
            output_tokens=less(max_output_tokens(turn), actions.used().output_tokens),
        )
        models = (claim.session.model, *fallback_models(turn))
        return AgentCalls(models=models, meter=meter, turn_budget=meter.turn_budget, call_limits=call_limits)

    def _scope(self, turn: Turn, claim: Claim) -> TurnScope:
        session, client = claim.session, turn.provider_client
        return TurnScope(
            tenant_id=turn.tenant_id,
            session_uid=session.uid,
            session_id=session.session_id,
            turn_id=turn.turn_id,
            user_reference=session.user_reference,
            agent=turn.agent.name,
            agent_version=turn.agent.version.version,
            provider_key_id=client.key_id,
            api_key_id=turn.key_id,
            owner=self._dependencies.replicas.replica_id,
            own_key=client.own,
        )

    def _check_permit(self, turn: Turn) -> None:
        """Check that a turn may make a further model call.

        Raises:
            InvalidApiKey: The key that started it was revoked or has expired.
            TenantSuspended: The tenant is suspended.
            TenantDeleted: The tenant is deleted.
            SessionLost: Another server may have taken its session over.
        """
        turn.check_key()
        if not self._dependencies.replicas.lease_valid(turn.epoch):
            raise SessionLost("The server lost touch with the database.", retry_after=1.0)


def agent_limits(turn: Turn, used: Used, *, default_calls: int) -> Limits:
    """Return the limits of the agent's loop.

    Args:
        turn: The turn.
        used: What the turns before this one have used.
        default_calls: The server's limit on model calls.
    """
    calls = less(max_model_calls(turn, default_calls), used.model_calls) or 0
    limits = Limits(turns=max(1, calls + (turn.waited is not None)))  # Strands counts its calls of tools as a cycle
    tokens = less(max_output_tokens(turn), used.output_tokens)
    if tokens is not None:
        limits["output_tokens"] = max(1, tokens)
    return limits


def max_model_calls(turn: Turn, default: int) -> int:
    """Return the lowest limit on the model calls of a turn: of the request, the definition and the server."""
    limits = (turn.request.max_model_calls, turn.agent.definition.limits.max_model_calls, default)
    return min(each for each in limits if each is not None)


def max_output_tokens(turn: Turn) -> int | None:
    """Return the lowest limit on the output tokens of all calls of a turn together; None: unlimited."""
    own = turn.agent.definition.limits.max_output_tokens
    limits = (turn.request.max_output_tokens, own, turn.policy.max_output_tokens)
    return min((each for each in limits if each is not None), default=None)


def max_cost(turn: Turn, used: Used) -> Decimal | None:
    """Return what is left of the lowest limit on the cost of all calls, in US dollars; None: it is unlimited."""
    limits = (turn.request.max_cost, turn.agent.definition.limits.max_cost)
    limit = min((each for each in limits if each is not None), default=None)
    return None if limit is None else max(Decimal(0), money.subtract(limit, used.cost))
