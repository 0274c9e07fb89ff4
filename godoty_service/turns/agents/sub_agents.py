"""Runs the agents that other agents of a turn call: each call has an agent of its own, on the turn's meter.

A sub-agent begins with an empty history, and its task is its user's message. It shares the turn's limits, budgets,
connections to MCP servers and event log, in which its events have its path. A failure of it is an error that the
calling model sees, except for a cancellation of the turn.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import structlog
from strands.interrupt import Interrupt
from strands.types._events import ToolInterruptEvent, ToolResultEvent
from strands.types.agent import Limits
from strands.types.exceptions import MaxTokensReachedException
from strands.types.tools import ToolUse

from godoty_service import exact_json
from godoty_service.actions.action import Callee
from godoty_service.agents.call_graph import MAX_CALLS, MAX_SECONDS, CallNotPossible, called_version, check_call
from godoty_service.agents.definitions import AgentVersion, McpTools, SubAgent
from godoty_service.agents.errors import AgentNotFound
from godoty_service.agents.mcp.tools import MCP, TurnConnections
from godoty_service.agents.profile import AgentInput, AgentProfile, agent_profile
from godoty_service.agents.tools.http_fetch import TENANT
from godoty_service.agents.tools.outcomes import ToolRefused, ToolTimedOut
from godoty_service.agents.tools.session_cost import SESSION_TOTALS, SessionTotalsReader
from godoty_service.budgets.turn_budget import SubAgentLimit
from godoty_service.citations import Citation
from godoty_service.errors import InvalidRequest, ModelNotAllowed, ProviderError
from godoty_service.metering.meter import CallingAgent, TurnMeter
from godoty_service.metering.sub_agent_meter import SubAgentMeter
from godoty_service.openrouter.call_limits import CallLimits, ModelCallsSpent
from godoty_service.openrouter.model import LISTENER
from godoty_service.pricing import money
from godoty_service.sessions.agent_states import METRICS_KEY
from godoty_service.sessions.session import Session
from godoty_service.tenancy.errors import AgentNotAllowed, ToolNotAllowed
from godoty_service.turns.actions.turn_actions import TurnActions, Used, less
from godoty_service.turns.agents.action_guard import ActionGuard, OutputOf, Proceed, Suspend
from godoty_service.turns.agents.agent import build_agent, release
from godoty_service.turns.agents.failures import release_frames, wrapped_error
from godoty_service.turns.agents.listeners import CallAnnouncer, CallListener, SubAgentLog, ToolListener
from godoty_service.turns.agents.models import AgentCalls, build_model, fallback_models
from godoty_service.turns.agents.output_model import OutputInvalid
from godoty_service.turns.agents.sub_agent_loop import cause_of, run_loop
from godoty_service.turns.agents.sub_agent_tool import TASK, SubAgentTool
from godoty_service.turns.call_spans import CallSpans
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.turn import Turn

log = structlog.get_logger(__name__)

_NOT_CALLED = (CallNotPossible, AgentNotFound, AgentNotAllowed, ToolNotAllowed, ModelNotAllowed, InvalidRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnParts:
    """What the agents of a turn share.

    Attributes:
        turn: The turn.
        session: Its session, with the model that the turn calls.
        meter: Counts the calls of all agents.
        spans: The spans of these calls.
        connections: The connections to MCP servers.
        tools: Receives the tool calls of the turn's own agent.
        announcer: Appends the finished model calls to the log.
        metrics: What the session has cost before the turn, for tools.
        session_totals: Returns what the session has cost until now.
        actions: The actions of the turn.
        output_of: Returns the result of a client tool that was answered.
    """

    turn: Turn
    session: Session
    meter: TurnMeter
    spans: CallSpans
    connections: TurnConnections
    tools: ToolListener
    announcer: CallAnnouncer
    metrics: dict[str, Any]
    session_totals: SessionTotalsReader
    actions: TurnActions
    output_of: OutputOf


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An agent that calls others.

    Attributes:
        names: The names of the agents that called one another down to this one, the turn's own first.
        path: The agent's path; empty: it is the turn's own.
        call_limits: What it may still use.
        limits: Limits on its cost, and on that of its callers but the turn's own agent.
    """

    names: tuple[str, ...]
    path: str
    call_limits: CallLimits
    limits: tuple[SubAgentLimit, ...]

    @classmethod
    def of_turn(cls, name: str, call_limits: CallLimits) -> "Caller":
        """Return the turn's own agent."""
        return cls(names=(name,), path="", call_limits=call_limits, limits=())


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sub-agent runs.

    Attributes:
        path: Its path.
        callee: It waited there before; None: it begins.
        suspend: Stores that it waits.
        proceed: Stores that it does not wait any more; None: it begins.
    """

    path: str
    callee: Callee | None
    suspend: Suspend
    proceed: Proceed | None


class _Unheard:
    """Receives an answer that no reader gets piece by piece: the calling model gets its text at the end."""

    def on_request(self) -> None:
        """Do nothing: the turn has begun."""

    def text(self, piece: str) -> None:
        """Do nothing."""

    def reasoning(self, piece: str) -> None:
        """Do nothing."""

    def citations(self, found: Sequence[Citation]) -> None:
        """Do nothing."""

    def complete(self) -> None:
        """Do nothing."""


class SubAgents:
    """The sub-agents of one turn."""

    def __init__(self, dependencies: TurnDependencies, parts: TurnParts) -> None:
        """Create it without a call.

        Args:
            dependencies: The collaborators of turns.
            parts: What the agents of the turn share.
        """
        self._dependencies = dependencies
        self._parts = parts
        self._numbered = self._calls = parts.actions.numbered
        self._versions: dict[SubAgent, AgentVersion] = {}

    def tools(self, profile: AgentProfile, caller: Caller, guard: ActionGuard) -> list[SubAgentTool]:
        """Return the tools by which an agent calls others; its guard stands before them."""
        return [self._tool(each, caller, guard) for each in profile.definition.tools if isinstance(each, SubAgent)]

    def _tool(self, entry: SubAgent, caller: Caller, guard: ActionGuard) -> SubAgentTool:
        paths: dict[str, str] = {}

        def path_of(tool_call_id: str) -> str:
            """Return the path of the sub-agent that a tool call runs: the first question numbers the call."""
            if (callee := guard.callee(tool_call_id)) is not None:
                return callee.path
            if tool_call_id not in paths:
                self._numbered += 1
                before = f"{caller.path}/" if caller.path else ""
                paths[tool_call_id] = f"{before}{entry.agent.name}#{self._numbered}"
            return paths[tool_call_id]

        async def call(entry: SubAgent, tool_use: ToolUse) -> ToolResultEvent | ToolInterruptEvent:
            tool_call_id = tool_use["toolUseId"]
            path = path_of(tool_call_id)
            paths.pop(tool_call_id, None)  # a later answer may have the same id
            waited = guard.callee(tool_call_id)
            proceed = partial(guard.proceed, tool_call_id) if waited is not None else None
            place = _Place(path, waited, partial(guard.suspend, tool_call_id), proceed)
            return await self._result(entry, caller, place, tool_use)

        return SubAgentTool(entry, path_of=path_of, call=call)

    async def _result(
        self, entry: SubAgent, caller: Caller, place: "_Place", tool_use: ToolUse
    ) -> ToolResultEvent | ToolInterruptEvent:
        """Run a sub-agent; return its last text, the error that the calling model sees, or that it waits."""
        status, text = "error", ""
        error: Exception | None = None
        try:
            async with asyncio.timeout(MAX_SECONDS) as limit:
                answer = await self._answer(entry, caller, place, tool_use["input"])
            if answer is None:
                return ToolInterruptEvent(tool_use, [Interrupt(id=f"agent:{place.path}", name="agent")])
            status, text = "success", answer
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            text = "The agent was cancelled."  # by itself: a tool use without a result would end the conversation
        except Exception as failure:  # noqa: BLE001 - logged if it is a fault
            if isinstance(failure, TimeoutError) and limit.expired():
                text = f"The agent did not answer within {MAX_SECONDS:g} s."
                error = ToolTimedOut(text)
            else:
                text = self._explain(entry, failure)
                error = ToolRefused(text) if isinstance(failure, _NOT_CALLED) else None
            release_frames(failure)
        return ToolResultEvent(
            {"toolUseId": tool_use["toolUseId"], "status": status, "content": [{"text": text}]},  # type: ignore[typeddict-item] # a literal
            exception=error,
        )

    async def _answer(self, entry: SubAgent, caller: Caller, place: "_Place", arguments: Any) -> str | None:
        """Run a sub-agent on its task, or go on with one that waited; return its last text, or None: it waits.

        Raises:
            CallNotPossible: It cannot be called.
            GodotyError: It failed.
        """
        task = arguments.get(TASK) if isinstance(arguments, dict) else None
        if not isinstance(task, str) or not task.strip():
            raise CallNotPossible(f'The input must have a text "{TASK}".')
        path, waited = place.path, place.callee
        if waited is None:
            self._count_call()
        check_call(caller.names, entry.agent.name)
        profile = await self._profile(entry, waited)
        parts, definition = self._parts, profile.definition
        models = self._models(profile)
        parts.turn.check_models(*models)
        await self._dependencies.oracle.prepare(models)
        mcp_tools = [each for each in definition.tools if isinstance(each, McpTools)]
        offered = await self._dependencies.mcp.offered(parts.turn.tenant_id, mcp_tools)
        limits, used = definition.limits, parts.actions.used(path)
        own_limit: tuple[SubAgentLimit, ...] = ()
        if limits.max_cost is not None:
            own_limit = (
                SubAgentLimit(path=path, max_cost=max(Decimal(0), money.subtract(limits.max_cost, used.cost))),
            )
        callee = Caller(
            names=(*caller.names, profile.name),
            path=path,
            call_limits=CallLimits(
                model_calls=less(limits.max_model_calls, used.model_calls),
                output_tokens=less(limits.max_output_tokens, used.output_tokens),
                caller=caller.call_limits,
            ),
            limits=(*caller.limits, *own_limit),
        )
        calling = CallingAgent(name=profile.name, version=profile.version.version, path=path, limits=callee.limits)
        calls = AgentCalls(
            models=models,
            meter=SubAgentMeter(parts.meter, calling),
            turn_budget=parts.meter.turn_budget,
            call_limits=callee.call_limits,
            bounded=bool(callee.limits),
        )
        model = build_model(self._dependencies, parts.turn, parts.session, profile, calls)
        part_of_log = SubAgentLog(parts.turn.log, path)
        guard = ActionGuard(
            parts.actions,
            profile,
            schemas=self._dependencies.schemas,
            log=part_of_log,
            output_of=parts.output_of,
            path=path,
            suspend=place.suspend,
            proceed=place.proceed,
            steps_before=waited.steps - 1 if waited is not None else 0,
        )
        agent, _ = build_agent(
            self._dependencies,
            parts.turn,
            parts.session,
            profile,
            model=model,
            tools=[*profile.tools, *self.tools(profile, callee, guard)],
            offered=offered,
            listener=ToolListener(part_of_log, observe=self._dependencies.observer.tool_called, turn=parts.tools),
            guard=guard,
            state={METRICS_KEY: parts.metrics},
        )
        if waited is not None:
            agent.messages = exact_json.loads(waited.messages)
        unheard = _Unheard()
        invocation: dict[str, Any] = {
            LISTENER: unheard,
            MCP: parts.connections,
            SESSION_TOTALS: parts.session_totals,
            TENANT: parts.turn.tenant_id,
        }
        listener = CallListener(part_of_log, meter=parts.meter, answer=unheard, announcer=parts.announcer)
        parts.spans.add_sub_agent(path, invocation)
        try:
            limit = self._loop_limits(profile, used, again=waited is not None)
            return await run_loop(agent, task if waited is None else None, invocation, listener, limits=limit)
        finally:
            parts.spans.remove_sub_agent(path)
            try:
                await model.aclose()
                await parts.meter.end_calls(path)
            finally:
                release(agent, invocation)

    def _count_call(self) -> None:
        """Count a call.

        Raises:
            CallNotPossible: The turn has made as many as there may be.
        """
        if self._calls >= MAX_CALLS:
            raise CallNotPossible(f"The turn has called agents {MAX_CALLS} times, which is the limit.")
        self._calls += 1

    async def _profile(self, entry: SubAgent, waited: Callee | None) -> AgentProfile:
        """Return the agent that an entry names: the same version in all calls of the turn.

        Raises:
            AgentNotFound: There is none.
            AgentNotAllowed, ToolNotAllowed: The tenant's policy does not allow the agent, or a tool of it.
            InvalidRequest: The turn's request lacks a value that its prompt needs.
        """
        turn, dependencies = self._parts.turn, self._dependencies
        version = self._versions.get(entry)
        if version is None and waited is not None:
            version = await dependencies.agents.get_version(turn.tenant_id, waited.name, waited.version)
        version = version or await called_version(dependencies.agents, turn.tenant_id, entry)
        version = self._versions.setdefault(entry, version)
        turn.policy.check_agent(version.name, version.definition.policy_names)
        return agent_profile(
            version,
            AgentInput(user=turn.request.user, variables=turn.request.variables),
            today=dependencies.clock().date(),
            tools=dependencies.tools,
            defaults=dependencies.defaults.agent,
            output=await dependencies.schemas.stored(version.definition.output_schema),
        )

    def _models(self, profile: AgentProfile) -> tuple[str, ...]:
        """Return the model of an agent and its fallbacks: its definition's, else those of the turn."""
        definition = profile.definition
        if definition.model:
            return (definition.model, *definition.fallback_models)
        return (self._parts.session.model, *fallback_models(self._parts.turn))

    def _loop_limits(self, profile: AgentProfile, used: Used, *, again: bool) -> Limits:
        """Return the limits of an agent's own loop; `CallLimits` counts the calls of all agents.

        Args:
            profile: The agent.
            used: What it has used before.
            again: It goes on with calls of tools, which Strands counts as a cycle.
        """
        own, default = profile.definition.limits, self._dependencies.defaults.max_model_calls
        turns = less(min(own.max_model_calls or default, default), used.model_calls) or 0
        limits = Limits(turns=max(1, turns + again))
        if (tokens := less(own.max_output_tokens, used.output_tokens)) is not None:
            limits["output_tokens"] = max(1, tokens)
        return limits

    def _explain(self, entry: SubAgent, failure: Exception) -> str:
        """Return what the calling model sees of a failure; a fault is logged."""
        if isinstance(failure, CallNotPossible):
            return str(failure)
        inner = cause_of(failure)
        if isinstance(inner, ModelCallsSpent | MaxTokensReachedException | OutputInvalid):
            return f"The agent {entry.agent.name} gave no answer: {inner}"
        error = wrapped_error(failure)
        if error is None:
            log.exception("sub_agent_fault", agent=entry.agent.name)  # noqa: LOG004 - called while the exception is handled
            return f"The agent {entry.agent.name} failed."
        if isinstance(error, ProviderError):
            client = self._parts.turn.provider_client
            self._dependencies.observer.provider_failed(error, provider_key_id=client.key_id)
        return f"The agent {entry.agent.name} failed: {error.text}"
