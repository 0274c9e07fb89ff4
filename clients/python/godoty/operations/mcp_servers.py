"""MCP servers, whose tools agents can use (scope agents)."""

from __future__ import annotations

from godoty.calls import Call, Pages
from godoty.codec import all_from, from_message, to_message
from godoty.types import AppliedMcpServer, McpServer, McpServerCheck
from godoty.v1 import mcp_server_pb2 as pb


def apply(server: McpServer, *, etag: str = "") -> Call[AppliedMcpServer]:
    """Create an MCP server, or change the one of its name."""
    request = pb.ApplyMcpServerRequest(server=to_message(pb.McpServer, server), etag=etag)
    return Call(
        "AgentDefinitionService.ApplyMcpServer", request, lambda response: from_message(AppliedMcpServer, response)
    )


def get(name: str) -> Call[McpServer]:
    """Return an MCP server, without its secrets."""
    request = pb.GetMcpServerRequest(mcp_server=name)
    return Call(
        "AgentDefinitionService.GetMcpServer", request, lambda response: from_message(McpServer, response.server)
    )


def list_servers(*, page_size: int = 0) -> Pages[McpServer]:
    """Yield the MCP servers, by name, without their secrets."""
    request = pb.ListMcpServersRequest(page_size=page_size)
    return Pages("AgentDefinitionService.ListMcpServers", request, lambda page: all_from(McpServer, page.servers))


def delete(name: str, *, etag: str = "") -> Call[None]:
    """Delete an MCP server, with its secrets."""
    request = pb.DeleteMcpServerRequest(mcp_server=name, etag=etag)
    return Call("AgentDefinitionService.DeleteMcpServer", request, lambda _: None)


def check(name: str) -> Call[McpServerCheck]:
    """Connect to an MCP server and list its tools, at most 30 seconds long."""
    request = pb.CheckMcpServerRequest(mcp_server=name)
    return Call(
        "AgentDefinitionService.CheckMcpServer", request, lambda response: from_message(McpServerCheck, response)
    )
