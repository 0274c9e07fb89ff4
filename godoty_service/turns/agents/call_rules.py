"""What a definition says of the calls of a tool, and what the answer to an action says of its call. Pure."""

from typing import Final

from strands.types.tools import AgentTool

from godoty_service.actions.action import ActionState, StepCall, Verdict
from godoty_service.agents.approval import Approval
from godoty_service.agents.definitions import AgentDefinition, BuiltInTool, McpTools, SubAgent, ToolEntry
from godoty_service.agents.mcp.server import matches
from godoty_service.agents.mcp.tools import McpTool
from godoty_service.turns.agents.sub_agent_tool import SubAgentTool

EXPIRED: Final = "The call was denied: no answer came in time."
NOT_IN_TIME: Final = "The call was not carried out: no answer came in time."
CLOSED: Final = "The call was not carried out."


def entry_of(definition: AgentDefinition, tool: AgentTool | None) -> ToolEntry | None:
    """Return what a definition says of a tool; None: nothing."""
    return next((each for each in definition.tools if _names(each, tool)), None)


def approval_of(entry: ToolEntry | None) -> Approval | None:
    """Return the approval that the calls of a tool need; None: they need none."""
    return entry.approval if isinstance(entry, BuiltInTool | McpTools | SubAgent) else None


def is_idempotent(entry: ToolEntry | None) -> bool:
    """Return whether a call may be made again if its outcome is unknown."""
    return isinstance(entry, BuiltInTool | McpTools | SubAgent) and entry.idempotent


def verdict_of(action: StepCall) -> Verdict | None:
    """Return what was answered to an action; None: nothing."""
    return action.decision.answer.verdict if action.decision is not None else None


def refusal_of(action: StepCall) -> str:
    """Return why the call of an action that is not open is not made; empty: it is."""
    match action.state:
        case ActionState.EXPIRED:
            return NOT_IN_TIME if action.closes_on_expiry else EXPIRED
        case ActionState.CLOSED:
            return CLOSED
    if action.decision is not None and verdict_of(action) is Verdict.DENY:
        why = action.decision.answer.why
        return f"The call was denied: {why}" if why else "The call was denied."
    return ""


def _names(entry: ToolEntry, tool: AgentTool | None) -> bool:
    """Return whether an entry of a definition is that of a tool."""
    match entry:
        case McpTools():
            return (
                isinstance(tool, McpTool)
                and tool.server.name == entry.server
                and matches(entry.allow, tool.listed.name)
            )
        case SubAgent():
            return isinstance(tool, SubAgentTool) and tool.tool_name == entry.tool_name
        case BuiltInTool():
            return tool is not None and tool.tool_name == entry.name
    return False
