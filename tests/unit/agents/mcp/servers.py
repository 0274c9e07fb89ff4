"""Servers and tools as values, for tests."""

from datetime import UTC, datetime
from typing import Any

from mcp_types import Tool

from godoty_service.agents.mcp.server import McpServer

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def server(**fields: Any) -> McpServer:
    """Return a server."""
    values: dict[str, Any] = {"tenant_id": "acme", "name": "crm", "url": "https://mcp.example/mcp", "prefix": "crm"}
    return McpServer(**(values | {"create_time": NOW, "update_time": NOW} | fields))


def tool(name: str, schema: dict[str, Any] | None = None, description: str | None = "Does something.") -> Tool:
    """Return a tool as a server lists it."""
    return Tool(name=name, description=description, input_schema={"type": "object"} if schema is None else schema)
