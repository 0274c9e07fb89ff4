"""Converts between AgentTool messages and the tools of definitions, and checks them."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from godoty.v1 import action_pb2
from godoty.v1 import agent_pb2 as pb

from godoty_service.agents.approval import Approval
from godoty_service.agents.client_tools import ClientTool, name_key, read_input_schema
from godoty_service.agents.definitions import SUB_AGENT_PREFIX, BuiltInTool, McpTools, SubAgent, ToolEntry
from godoty_service.agents.output.schemas import NO_SCHEMA, OutputSchemas, ReadSchema
from godoty_service.agents.tools.registry import NEED_SETTINGS
from godoty_service.rpc.agents.fields import read_agent
from godoty_service.rpc.agents.mcp_codec import NAME as MCP_SERVER_NAME
from godoty_service.rpc.agents.mcp_codec import check_tool_patterns
from godoty_service.rpc.validation import COUNTS, LENGTHS, Violations

_LONGEST_SUB_AGENT = 64 - len(SUB_AGENT_PREFIX)  # the names of tools have at most 64 characters
TOOL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_REVIEWER = action_pb2.ACTION_DECIDER_REVIEWER
_CLOSE = action_pb2.ACTION_EXPIRY_CLOSE


async def read_conditions(schemas: OutputSchemas, message: pb.AgentDefinition) -> list[ReadSchema]:
    """Read the conditions of a definition's tools, in the order of the tools."""
    tools = message.tools[: COUNTS["tools"]]
    return [await schemas.read(each.approval.condition) for each in tools]


def read_tools(
    path: str,
    message: pb.AgentDefinition,
    known: Collection[str],
    violations: Violations,
    conditions: Sequence[ReadSchema] = (),
) -> tuple[ToolEntry, ...]:
    """Return the tools of a definition; add each that is unknown, or there twice.

    Args:
        path: The path of the definition, with a dot at its end.
        message: The definition.
        known: The names of the server's tools.
        violations: Gets what is invalid.
        conditions: The conditions of the tools, in their order; fewer: the others have none.
    """
    most = COUNTS["tools"]
    if len(message.tools) > most:
        violations.add(f"{path}tools", f"must be at most {most}")
        return ()
    found: list[ToolEntry] = []
    names: set[str] = set()
    for index, each in enumerate(message.tools):
        place = f"{path}tools[{index}]"
        tool = _read_tool(place, each, known, violations)
        if tool is None:
            continue
        condition = conditions[index] if index < len(conditions) else NO_SCHEMA
        tool = _with_rules(place, each, tool, condition, violations)
        name = _identity(tool)
        if name in names:
            violations.add(place, "must be there once")
        names.add(name)
        found.append(tool)
    return tuple(found)


def read_client_tools(
    path: str, messages: Sequence[action_pb2.ClientTool], violations: Violations
) -> tuple[ClientTool, ...]:
    """Return the client tools of a request; add each that is invalid, or has the name of another."""
    most = COUNTS["client_tools"]
    if len(messages) > most:
        violations.add(path, f"must be at most {most}")
        return ()
    found = [_read_client_tool(f"{path}[{index}].", each, violations) for index, each in enumerate(messages)]
    if len({name_key(each.name) for each in found}) < len(found):
        violations.add(path, "must have different names, also with `-` and `_` taken as one")
    return tuple(found)


def tool_message(tool: ToolEntry) -> pb.AgentTool:
    """Convert a tool of a definition."""
    match tool:
        case BuiltInTool():
            message = pb.AgentTool(builtin=tool.name)
        case McpTools():
            message = pb.AgentTool(mcp=pb.McpToolset(mcp_server=tool.server, allow=tool.allow))
        case SubAgent():
            message = pb.AgentTool(agent=pb.SubAgent(agent=tool.agent.label, description=tool.description))
        case ClientTool():
            return pb.AgentTool(client=client_tool_message(tool))
    message.idempotent = tool.idempotent
    if (approval := tool.approval) is not None:
        message.approval.CopyFrom(
            action_pb2.ToolApproval(
                condition=approval.condition,
                decider=_REVIEWER if approval.reviewer else None,
                why=approval.why,
                on_expiry=_CLOSE if approval.closes_on_expiry else None,
            )
        )
    return message


def client_tool_message(tool: ClientTool) -> action_pb2.ClientTool:
    """Convert a client tool."""
    return action_pb2.ClientTool(
        tool_name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        on_expiry=_CLOSE if tool.closes_on_expiry else None,
    )


def _read_tool(place: str, each: pb.AgentTool, known: Collection[str], violations: Violations) -> ToolEntry | None:
    match each.WhichOneof("tool"):
        case "builtin":
            if each.builtin not in known:
                violations.add(f"{place}.builtin", _unknown_tool(each.builtin, known))
            return BuiltInTool(name=each.builtin)
        case "mcp":
            return _read_mcp_tools(f"{place}.mcp.", each.mcp, violations)
        case "agent":
            return _read_sub_agent(f"{place}.agent.", each.agent, violations)
        case "client":
            return _read_client_tool(f"{place}.client.", each.client, violations)
    violations.add(place, "must have a tool")
    return None


def _with_rules(
    place: str, each: pb.AgentTool, tool: ToolEntry, condition: ReadSchema, violations: Violations
) -> ToolEntry:
    """Return a tool with the approval that its calls need."""
    if isinstance(tool, ClientTool):
        for name in ("approval", "idempotent"):
            if each.HasField("approval") if name == "approval" else each.idempotent:
                violations.add(f"{place}.{name}", "must be unset: the caller runs the tool")
        return tool
    if not each.HasField("approval"):
        return replace(tool, idempotent=each.idempotent)
    approval = each.approval
    if condition.fault is not None:
        violations.add(f"{place}.approval.condition", condition.fault)
    if approval.decider not in action_pb2.ActionDecider.values():
        violations.add(f"{place}.approval.decider", "must be one of its values")
    check_words(f"{place}.approval.why", approval.why, violations)
    _check_expiry(f"{place}.approval.", approval.on_expiry, violations)
    return replace(
        tool,
        idempotent=each.idempotent,
        approval=Approval(
            condition=condition.schema.text if condition.schema is not None else "",
            reviewer=approval.decider == _REVIEWER,
            closes_on_expiry=approval.on_expiry == _CLOSE,
            why=approval.why,
        ),
    )


def check_words(field: str, text: str, violations: Violations) -> None:
    """Add a field whose text is too long, or cannot be printed."""
    longest = LENGTHS["why"]
    if len(text) > longest or not text.isprintable():
        violations.add(field, f"must have at most {longest} printable characters")


def _identity(tool: ToolEntry) -> str:
    """Return what no other tool of a definition has."""
    match tool:
        case BuiltInTool():
            return name_key(tool.name)
        case McpTools():
            return f"mcp:{tool.server}:{'|'.join(tool.allow)}"
        case SubAgent():
            return name_key(tool.tool_name)
        case ClientTool():
            return name_key(tool.name)


def _unknown_tool(name: str, known: Collection[str]) -> str:
    """Return what is wrong with a tool that this server does not have."""
    text = f"must be one of {', '.join(sorted(known))}"
    return f"{text}; for {name}, the operator sets {NEED_SETTINGS[name]}" if name in NEED_SETTINGS else text


def _read_sub_agent(path: str, message: pb.SubAgent, violations: Violations) -> SubAgent:
    reference = read_agent(f"{path}agent", message.agent, violations)
    if len(reference.name) > _LONGEST_SUB_AGENT:
        violations.add(f"{path}agent", f"must have at most {_LONGEST_SUB_AGENT} characters before its version")
    _check_description(path, message.description, violations)
    return SubAgent(agent=reference, description=message.description)


def _read_mcp_tools(path: str, message: pb.McpToolset, violations: Violations) -> McpTools:
    if not MCP_SERVER_NAME.fullmatch(message.mcp_server):
        violations.add(f"{path}mcp_server", f"must be the name of an MCP server: {MCP_SERVER_NAME.pattern}")
    check_tool_patterns(f"{path}allow", message.allow, violations)
    return McpTools(server=message.mcp_server, allow=tuple(message.allow))


def _read_client_tool(path: str, message: action_pb2.ClientTool, violations: Violations) -> ClientTool:
    if not TOOL_NAME.fullmatch(message.tool_name):
        violations.add(f"{path}tool_name", f"must match {TOOL_NAME.pattern}")
    _check_description(path, message.description, violations)
    schema = ""
    try:
        schema = read_input_schema(message.input_schema)
    except ValueError as error:
        violations.add(f"{path}input_schema", str(error))
    _check_expiry(path, message.on_expiry, violations)
    return ClientTool(
        name=message.tool_name,
        description=message.description,
        input_schema=schema,
        closes_on_expiry=message.on_expiry == _CLOSE,
    )


def _check_description(path: str, text: str, violations: Violations) -> None:
    longest = LENGTHS["description"]
    if not (0 < len(text) <= longest and text.isprintable() and text.strip()):
        violations.add(f"{path}description", f"must have 1 to {longest} printable characters")


def _check_expiry(path: str, value: int, violations: Violations) -> None:
    if value not in action_pb2.ActionExpiry.values():
        violations.add(f"{path}on_expiry", "must be one of its values")
