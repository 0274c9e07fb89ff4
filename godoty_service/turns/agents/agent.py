"""Builds an agent of a turn: Strands' agent, with its hooks and the history that its model sees."""

import json
from collections.abc import Sequence
from typing import Any

from strands import Agent
from strands.plugins import Plugin
from strands.types.tools import AgentTool

from godoty_service.agents.mcp.tools import OfferedTools, offer
from godoty_service.agents.profile import AgentProfile
from godoty_service.agents.tools.client import offer_client_tools
from godoty_service.openrouter.decoding.tool_calls import UnparsedInputs
from godoty_service.openrouter.model import OpenRouterModel
from godoty_service.sessions.session import Session
from godoty_service.sessions.strands_session_manager import MongoSessionManager
from godoty_service.turns.agents.action_guard import ActionGuard, ActionResults
from godoty_service.turns.agents.listeners import ToolListener
from godoty_service.turns.agents.models import context_length
from godoty_service.turns.agents.tool_output import ToolOutputLimit
from godoty_service.turns.call_spans import turn_attributes
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.history import OverflowTrimmer, history_management
from godoty_service.turns.turn import Turn


class _NoDelegation(Plugin):
    """Takes the place of Strands' own plugin of this name, whose tools no agent has here.

    That one searches its class for hooks in each new agent, and is called around each model call and each tool call.
    """

    name = "strands:agent-delegation"


_NO_DELEGATION = _NoDelegation()  # it has no state


def build_agent(
    dependencies: TurnDependencies,
    turn: Turn,
    session: Session,
    profile: AgentProfile,
    *,
    model: OpenRouterModel,
    tools: Sequence[AgentTool],
    offered: OfferedTools,
    listener: ToolListener,
    guard: ActionGuard,
    state: dict[str, Any],
    manager: MongoSessionManager | None = None,
) -> tuple[Agent, OverflowTrimmer]:
    """Build an agent, and what makes its history fit its model.

    Args:
        dependencies: The collaborators of turns.
        turn: The turn.
        session: Its session.
        profile: The agent.
        model: Its model.
        tools: Its tools, without those of MCP servers.
        offered: Its tools of MCP servers.
        listener: Receives its tool calls.
        guard: Stands before its tool calls.
        state: Its state.
        manager: Stores its messages; None: they are not stored, as it is a sub-agent.
    """
    name = str(model.get_config()["model_id"])
    client_tools = profile.definition.client_tools + (turn.request.client_tools if manager is not None else ())

    def fixed_bytes() -> int:
        """Return the bytes of each request beside the history."""
        size = sum(len(json.dumps(tool.tool_spec)) for tool in tools) + len(profile.system_prompt.encode())
        size += sum(each.size for each in client_tools) + offered.spec_bytes
        return size + (profile.output.sent_bytes if profile.output is not None else 0)

    trimmer = OverflowTrimmer(context_tokens=context_length(dependencies.oracle.current, name), fixed_bytes=fixed_bytes)
    agent = Agent(
        model=model,
        system_prompt="\n\n".join(filter(None, (profile.system_prompt, *offered.notes))) or None,
        tools=list(tools),
        state=state,
        agent_id=profile.name,
        name=profile.name,
        session_manager=manager,
        plugins=[_NO_DELEGATION],
        callback_handler=None,
        retry_strategy=None,
        trace_attributes=turn_attributes(tenant_id=turn.tenant_id, session_id=session.session_id, turn_id=turn.turn_id),
        **history_management(profile, trimmer, sub_agent=manager is None),
    )
    limit = ToolOutputLimit(dependencies.defaults.tool_output_bytes)
    # Not as `hooks`: Strands would check each of them against a protocol, which is slow.
    for hook in (guard, listener, ActionResults(guard), UnparsedInputs(), limit):
        agent.hooks.add_hook(hook)
    offer(agent, offered)
    offer_client_tools(agent, client_tools)
    return agent, trimmer


def release(agent: Agent, invocation: dict[str, Any]) -> None:
    """Take an agent apart that has ended, so that its memory is freed at once.

    Strands' agent, its hooks and its tools refer to one another, and so does its registry of tools to itself. Only a
    full garbage collection would free them, and with them the turn's log and messages; with 250 streams that takes
    0.2 s in which the process does nothing.

    Args:
        agent: The agent.
        invocation: Its invocation state.
    """
    invocation.clear()
    vars(agent.tool_registry).clear()
    vars(agent).clear()
