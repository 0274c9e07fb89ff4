"""Builds a turn's meter, model, agent and listeners."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from strands import Agent
from strands.types.agent import Limits

from godoty_service.agents.definitions import ModelParameters
from godoty_service.agents.mcp.tools import MCP, OfferedTools, TurnConnections, offer
from godoty_service.budgets.turn_budget import TurnBudget
from godoty_service.errors import SessionLost
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.totals import SessionTotals
from godoty_service.metering.meter import TurnMeter, TurnScope
from godoty_service.openrouter.model import LISTENER, CallTerms, OpenRouterModel
from godoty_service.openrouter.tool_calls import UnparsedInputs
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.sessions.session import Claim
from godoty_service.sessions.strands_session_manager import MongoSessionManager
from godoty_service.turns.call_spans import CallSpans, turn_attributes
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.event_log.agent_listeners import CallListener, ToolListener, ToolOutputLimit
from godoty_service.turns.event_log.answer_listener import AnswerListener
from godoty_service.turns.history import History, OverflowTrimmer, history_management
from godoty_service.turns.session_metrics import METRICS_KEY, state_metrics
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

    def release(self) -> None:
        """Take the agent apart when its turn has ended, so that the turn's memory is freed at once.

        Strands' agent, its hooks and its tools refer to one another. Only a full garbage collection would free them,
        and with them the turn's log and messages; with 250 streams that takes 0.2 s in which the process does nothing.
        """
        self.invocation.clear()
        vars(self.agent).clear()


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
    ) -> Prepared:
        """Build the parts of a turn whose session is loaded.

        Args:
            turn: The turn.
            claim: The acquired session.
            totals: The session's totals.
            history: The history that the model sees.
            offered: The MCP tools that the agent may use.
            on_request: Called before each request to the model.
        """
        manager = self._session_manager(turn, claim, history)
        answer = AnswerListener(turn.log, on_request=on_request, on_first_output=manager.write_pending)
        connections = self._dependencies.mcp.connections()
        invocation: dict[str, Any] = {LISTENER: answer, MCP: connections}
        spans = CallSpans(invocation)
        meter = self._meter(turn, claim, spans, last_number=totals.last_number)
        model = self._model(turn, claim, meter)
        tools, trimmer = ToolListener(turn.log), self._trimmer(turn, claim, offered)
        state = {**claim.session.state, METRICS_KEY: state_metrics(totals)}
        agent = self._agent(
            turn, claim, model=model, manager=manager, tools=tools, trimmer=trimmer, state=state, notes=offered.notes
        )
        offer(agent, offered)
        return Prepared(
            totals=totals,
            manager=manager,
            meter=meter,
            model=model,
            agent=agent,
            trimmer=trimmer,
            spans=spans,
            answer=answer,
            calls=CallListener(turn.log, meter=meter, answer=answer),
            tools=tools,
            connections=connections,
            invocation=invocation,
        )

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

    def _meter(self, turn: Turn, claim: Claim, spans: CallSpans, *, last_number: int) -> TurnMeter:
        """Build the turn's meter.

        Args:
            turn: The turn.
            claim: The acquired session.
            spans: The spans of the turn's calls.
            last_number: The number of the session's last ledger entry.
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
            turn_budget=TurnBudget(dependencies.budget_service, budgets=turn.policy.budgets, max_cost=max_cost(turn)),
            clock=dependencies.clock,
            keeps_records=dependencies.client_pool.keeps_records,
            on_opened=spans.opened,
            on_ended=on_end,
        )

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

    def _model(self, turn: Turn, claim: Claim, meter: TurnMeter) -> OpenRouterModel:
        """Build the turn's model."""
        session, catalogue = claim.session, self._dependencies.oracle.current
        defaults = self._dependencies.defaults
        fallbacks, parameters = fallback_models(turn), turn.agent.parameters
        models = (session.model, *fallbacks)
        return OpenRouterModel(
            client=turn.provider_client.client,
            meter=meter,
            model=session.model,
            fallback_models=fallbacks,
            max_output_tokens=max_output_tokens(turn),
            call_output_tokens=parameters.max_output_tokens,
            side_output_tokens=defaults.summary_output_tokens,
            parameters=request_parameters(parameters, prompt_caching=turn.agent.definition.prompt_caching),
            call_terms=self._call_terms(turn, meter, models),
            provider=provider_routing(turn) or None,
            user=pseudonym(session.tenant_id, session.user_reference) if session.user_reference else None,
            session_key=pseudonym(session.tenant_id, session.uid),
            maker=lambda served: _requested_model(catalogue, models, served),
            context_window=_context_length(catalogue, session.model),
            limits=defaults.answer_limits,
        )

    def _call_terms(
        self, turn: Turn, meter: TurnMeter, models: tuple[str, ...]
    ) -> Callable[[int], Awaitable[CallTerms]]:
        oracle = self._dependencies.oracle

        async def terms(request_bytes: int) -> CallTerms:
            """Return the limits by which a call is reserved under a hard budget, which may be set during the turn."""
            await oracle.prepare(models)
            await meter.turn_budget.refresh(meter.scope.tenant_id)
            if not meter.turn_budget.bounded:
                return CallTerms()
            routing = provider_routing(turn)
            ceiling = oracle.max_price(models, request_bytes=request_bytes)
            routing["max_price"] = _lowest_prices(ceiling, routing.get("max_price", {}))
            limit = oracle.output_limit(models, request_bytes=request_bytes)
            return CallTerms(max_output_tokens=limit, provider=routing)

        return terms

    def _trimmer(self, turn: Turn, claim: Claim, offered: OfferedTools) -> OverflowTrimmer:
        """Build the trimmer that makes the turn's history fit its model."""
        agent = turn.agent
        fixed = sum(len(json.dumps(tool.tool_spec)) for tool in agent.tools) + len(agent.system_prompt.encode())
        context_tokens = _context_length(self._dependencies.oracle.current, claim.session.model)
        return OverflowTrimmer(context_tokens=context_tokens, fixed_bytes=fixed + offered.spec_bytes)

    def _agent(
        self,
        turn: Turn,
        claim: Claim,
        *,
        model: OpenRouterModel,
        manager: MongoSessionManager,
        tools: ToolListener,
        trimmer: OverflowTrimmer,
        state: dict[str, Any],
        notes: tuple[str, ...],
    ) -> Agent:
        """Build the turn's agent.

        Args:
            turn: The turn.
            claim: The acquired session.
            model: The turn's model.
            manager: The turn's session manager.
            tools: Receives the tool calls.
            trimmer: Makes the history fit the model.
            state: The agent's state.
            notes: What the model is to know beside the agent's prompt.
        """
        profile = turn.agent
        return Agent(
            model=model,
            system_prompt="\n\n".join(filter(None, (profile.system_prompt, *notes))) or None,
            tools=list(profile.tools),
            state=state,
            agent_id=profile.name,
            name=profile.name,
            session_manager=manager,
            hooks=[tools, UnparsedInputs(), ToolOutputLimit(self._dependencies.defaults.tool_output_bytes)],
            callback_handler=None,
            retry_strategy=None,
            trace_attributes=turn_attributes(
                tenant_id=turn.tenant_id, session_id=claim.session.session_id, turn_id=turn.turn_id
            ),
            **history_management(profile, trimmer),
        )


def agent_limits(turn: Turn, *, max_model_calls: int) -> Limits:
    """Return the limits of the agent's loop: of the request, the definition, the policy and the server, the lowest.

    Args:
        turn: The turn.
        max_model_calls: The server's limit.
    """
    calls = (turn.request.max_model_calls, turn.agent.definition.limits.max_model_calls, max_model_calls)
    limits = Limits(turns=min(each for each in calls if each is not None))
    tokens = max_output_tokens(turn)
    if tokens is not None:
        limits["output_tokens"] = tokens
    return limits


def max_output_tokens(turn: Turn) -> int | None:
    """Return the lowest limit on the output tokens of all calls of a turn together; None: unlimited."""
    own = turn.agent.definition.limits.max_output_tokens
    limits = (turn.request.max_output_tokens, own, turn.policy.max_output_tokens)
    return min((each for each in limits if each is not None), default=None)


def max_cost(turn: Turn) -> Decimal | None:
    """Return the lowest limit on the cost of all calls of a turn together, in US dollars; None: unlimited."""
    limits = (turn.request.max_cost, turn.agent.definition.limits.max_cost)
    return min((each for each in limits if each is not None), default=None)


def fallback_models(turn: Turn) -> tuple[str, ...]:
    """Return the models to try if the first cannot answer: they belong to the model that is named first.

    That is the model of the request, of the agent's definition, or of the policy.
    """
    if turn.request.model:
        return turn.request.fallback_models
    definition = turn.agent.definition
    return definition.fallback_models if definition.model else turn.policy.default_fallback_models


def provider_routing(turn: Turn) -> dict[str, Any]:
    """Return the preferences among OpenRouter's providers: the agent's, and those of the policy in place of them.

    The policy is the operator's, so an agent can only narrow what it bounds or excludes.
    """
    own, routing = turn.policy.provider or {}, dict(turn.agent.parameters.provider or {})
    ignored = [*routing.get("ignore", ()), *own.get("ignore", ())]
    prices = _lowest_prices(routing.get("max_price", {}), own.get("max_price", {}))
    routing |= own
    routing |= {"ignore": list(dict.fromkeys(ignored))} if ignored else {}
    routing |= {"max_price": prices} if prices else {}
    if turn.policy.zero_data_retention:
        routing["zdr"] = True
    return routing


def request_parameters(parameters: ModelParameters, *, prompt_caching: bool = False) -> dict[str, Any]:
    """Return the fields of the agent's requests to the provider, except for limits and routing.

    Args:
        parameters: The agent's parameters.
        prompt_caching: Mark the last block that can be cached, for providers that cache what is marked alone.
    """
    reasoning = parameters.reasoning
    fields: dict[str, Any] = {
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "seed": parameters.seed,
        "stop": list(parameters.stop) or None,
        "cache_control": {"type": "ephemeral"} if prompt_caching else None,
    }
    if reasoning is not None:
        effort = reasoning.effort
        fields["reasoning"] = {"max_tokens": reasoning.max_tokens} if effort is None else {"effort": effort.value}
    return {name: value for name, value in fields.items() if value is not None}


def pseudonym(*parts: str) -> str:
    """Return an identifier for the provider that reveals nothing and differs between tenants."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def _context_length(catalogue: Catalogue | None, model: str) -> int | None:
    listed = catalogue.find(model) if catalogue is not None else None
    return listed.context_length if listed is not None else None


def _requested_model(catalogue: Catalogue | None, models: tuple[str, ...], served: str | None) -> str:
    """Return which of the requested models served: a fallback if the catalogue identifies it, else the first."""
    found = catalogue.find(served, requested=models) if catalogue is not None and served else None
    if catalogue is None or found is None:
        return models[0]
    listed = ((name, catalogue.find(name)) for name in models)
    return next((name for name, each in listed if each is not None and each.id == found.id), models[0])


def _lowest_prices(*prices: Mapping[str, str]) -> dict[str, str]:
    """Return the lowest bound of each price: a tenant's own must not raise the one that its calls are reserved by."""
    names = dict.fromkeys(name for each in prices for name in each)
    return {name: min((each[name] for each in prices if name in each), key=Decimal) for name in names}
