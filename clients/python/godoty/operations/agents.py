"""Agents: those that can be talked to, their definitions and their MCP servers; and the models."""

from __future__ import annotations

from typing import TypeVar

from godoty.calls import Call, Namespace, Paged, Pages, Unary
from godoty.codec import all_from, from_message, to_message
from godoty.connection import AsyncConnection, Connection
from godoty.types import (
    Agent,
    AgentDefinition,
    AgentSummary,
    AgentVersion,
    AppliedAgent,
    AppliedMcpServer,
    McpServer,
    McpServerCheck,
    Model,
)
from godoty.v1 import agent_definition_service_pb2 as definition_pb
from godoty.v1 import agent_pb2, mcp_server_pb2
from godoty.v1 import agent_service_pb2 as pb

_C = TypeVar("_C", Connection, AsyncConnection)


def list_agents(*, page_size: int = 0) -> Pages[AgentSummary]:
    """Yield the agents with which a session can begin, by name (scope converse)."""
    request = pb.ListAgentsRequest(page_size=page_size)
    return Pages("AgentService.ListAgents", request, lambda page: all_from(AgentSummary, page.agents))


def list_models(*, page_size: int = 0) -> Pages[Model]:
    """Yield the models that turns may use, by id, with their prices (scope converse)."""
    request = pb.ListModelsRequest(page_size=page_size)
    return Pages("AgentService.ListModels", request, lambda page: all_from(Model, page.models))


def apply(definition: AgentDefinition, *, etag: str = "") -> Call[AppliedAgent]:
    """Make a definition the newest version of its agent, which is created if there is none (scope agents).

    Args:
        definition: The definition. The same content as the newest version changes nothing.
        etag: That of the agent that it was made from; `EtagMismatch` if the agent has changed since. Empty: any.
    """
    message = to_message(agent_pb2.AgentDefinition, definition)
    request = definition_pb.ApplyAgentRequest(definition=message, etag=etag)
    return Call(
        "AgentDefinitionService.ApplyAgent", request, lambda response: from_message(AppliedAgent, response)
    )


def get(agent: str) -> Call[Agent]:
    """Return the newest version of an agent, or the one of "name@version" (scope agents)."""
    request = definition_pb.GetAgentRequest(agent=agent)
    return Call("AgentDefinitionService.GetAgent", request, lambda response: from_message(Agent, response))


def definitions(*, page_size: int = 0) -> Pages[AgentVersion]:
    """Yield the newest version of each agent, by name (scope agents)."""
    request = definition_pb.ListAgentDefinitionsRequest(page_size=page_size)
    return Pages(
        "AgentDefinitionService.ListAgentDefinitions", request, lambda page: all_from(AgentVersion, page.agent_versions)
    )


def versions(agent: str, *, page_size: int = 0) -> Pages[AgentVersion]:
    """Yield the versions of an agent, newest first (scope agents)."""
    request = definition_pb.ListAgentVersionsRequest(agent=agent, page_size=page_size)
    return Pages(
        "AgentDefinitionService.ListAgentVersions", request, lambda page: all_from(AgentVersion, page.agent_versions)
    )


def delete(agent: str, *, etag: str = "") -> Call[None]:
    """Hide an agent: no further session can begin with it (scope agents)."""
    request = definition_pb.DeleteAgentRequest(agent=agent, etag=etag)
    return Call("AgentDefinitionService.DeleteAgent", request, lambda _: None)


def apply_server(server: McpServer, *, etag: str = "") -> Call[AppliedMcpServer]:
    """Create an MCP server, or change the one of its name."""
    message = to_message(mcp_server_pb2.McpServer, server)
    request = mcp_server_pb2.ApplyMcpServerRequest(server=message, etag=etag)
    return Call(
        "AgentDefinitionService.ApplyMcpServer", request, lambda response: from_message(AppliedMcpServer, response)
    )


def get_server(name: str) -> Call[McpServer]:
    """Return an MCP server, without its secrets."""
    request = mcp_server_pb2.GetMcpServerRequest(mcp_server=name)
    return Call(
        "AgentDefinitionService.GetMcpServer", request, lambda response: from_message(McpServer, response.server)
    )


def list_servers(*, page_size: int = 0) -> Pages[McpServer]:
    """Yield the MCP servers, by name, without their secrets."""
    request = mcp_server_pb2.ListMcpServersRequest(page_size=page_size)
    return Pages("AgentDefinitionService.ListMcpServers", request, lambda page: all_from(McpServer, page.servers))


def delete_server(name: str, *, etag: str = "") -> Call[None]:
    """Delete an MCP server, with its secrets."""
    request = mcp_server_pb2.DeleteMcpServerRequest(mcp_server=name, etag=etag)
    return Call("AgentDefinitionService.DeleteMcpServer", request, lambda _: None)


def check_server(name: str) -> Call[McpServerCheck]:
    """Connect to an MCP server and list its tools, at most 30 seconds long."""
    request = mcp_server_pb2.CheckMcpServerRequest(mcp_server=name)
    return Call(
        "AgentDefinitionService.CheckMcpServer", request, lambda response: from_message(McpServerCheck, response)
    )


class Agents(Namespace[_C]):
    """Agents: `list` is for those who talk to them, all else for those who define them."""

    list = Paged(list_agents)
    apply = Unary(apply)
    get = Unary(get)
    definitions = Paged(definitions)
    versions = Paged(versions)
    delete = Unary(delete)


class Models(Namespace[_C]):
    """The provider's models."""

    list = Paged(list_models)


class McpServers(Namespace[_C]):
    """MCP servers, whose tools agents can use (scope agents)."""

    apply = Unary(apply_server)
    get = Unary(get_server)
    list = Paged(list_servers)
    delete = Unary(delete_server)
    check = Unary(check_server)
