"""Builds what manages MCP servers, and what calls their tools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from godoty_service.agents.mcp.changes import McpComponents, McpServerChanges
from godoty_service.agents.mcp.links import ServerLinks
from godoty_service.agents.mcp.store import Encryption, McpServers
from godoty_service.agents.mcp.toolbox import McpToolbox
from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.pool import Network
from godoty_service.clock import Clock
from godoty_service.mongo.client import Database
from godoty_service.settings.settings import Settings


def build_mcp(settings: Settings, database: Database, clock: Clock, *, secret_box: Encryption) -> McpComponents:
    """Build what manages MCP servers."""
    servers = McpServers(database.collection(McpServers.COLLECTION), secret_box=secret_box)
    return McpComponents(
        servers=servers,
        changes=McpServerChanges(servers, clock=clock),
        rules=AddressRules(settings.mcp_allowed_networks),
    )


@asynccontextmanager
async def open_toolbox(settings: Settings, components: McpComponents) -> AsyncIterator[McpToolbox]:
    """Build the tools of MCP servers; at the end of the block all connections are closed."""
    network = Network(rules=components.rules, connect_timeout=settings.connect_timeout)
    links = ServerLinks(network, unseal=components.servers.unseal)
    toolbox = McpToolbox(components.servers, links, max_bytes=settings.mcp_answer_bytes)
    try:
        yield toolbox
    finally:
        await toolbox.aclose()
