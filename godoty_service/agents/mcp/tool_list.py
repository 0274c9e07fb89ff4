"""The tools of a server as agents see them: named with the server's prefix, and bounded in number and size."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mcp_types import Tool
from pydantic_core import to_json
from strands.types.tools import ToolSpec

from godoty_service.agents.mcp.server import McpServer

MAX_TOOLS = 128  # of one server; more than one request may offer to most models
MAX_DESCRIPTION = 4096  # characters
MAX_SCHEMA_BYTES = 16 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_TOTAL_BYTES = 256 * 1024  # of the schemas and descriptions of a server
_MAX_NAME = 64  # characters that all providers accept
_MAX_OWN_NAME = 128  # characters of a server's name of a tool
_HASH = 8  # characters
_PIECE = 64 * 1024  # bytes of schemas that are examined at once
_UNNAMABLE: Final = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTool:
    """A tool of a server.

    Attributes:
        name: The server's name of it.
        offered_name: The name that models see.
        description: What it does, in the server's words, shortened.
        schema: The JSON schema of its input, unchanged.
        schema_bytes: The bytes of the schema.
        problem: Why no agent can use it; empty: agents can.
    """

    name: str
    offered_name: str
    description: str
    schema: dict[str, Any]
    schema_bytes: int
    problem: str = ""

    @property
    def spec(self) -> ToolSpec:
        """The tool as Strands describes it."""
        return {"name": self.offered_name, "description": self.description, "inputSchema": {"json": self.schema}}

    @property
    def size(self) -> int:
        """Bytes of its schema and description, approximately."""
        return self.schema_bytes + len(self.description)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class ToolList:
    """The tools of a server, as one read found them.

    Attributes:
        tools: All that it lists, in its order, up to a number.
        left_out: The number of tools beyond those.
        lists_first: Whether clients must list the tools before they call one.
    """

    tools: tuple[ListedTool, ...]
    left_out: int = 0
    lists_first: bool = False

    @property
    def size(self) -> int:
        """Bytes that the list takes, approximately."""
        return sum(each.size for each in self.tools) + 512 * len(self.tools)


async def make_tool_list(server: McpServer, tools: Sequence[Tool]) -> ToolList:
    """Return the tools as agents see them; a long list is examined piece by piece."""
    listed: list[ListedTool] = []
    taken: dict[str, str] = {}
    total = examined = 0
    for tool in tools[:MAX_TOOLS]:
        one = _listed(server, tool)
        if not one.problem and (other := taken.get(_folded(one.offered_name))) is not None:
            one = replace(one, problem=f"its name is that of {other}")
        if not one.problem and total + one.size > MAX_TOTAL_BYTES:
            one = replace(one, problem=f"the schemas of the server have more than {MAX_TOTAL_BYTES:,} bytes")
        if not one.problem:
            taken[_folded(one.offered_name)] = one.name
            total += one.size
        # One that cannot be used is listed without its schema, which may be large.
        listed.append(replace(one, schema={}) if one.problem else one)
        examined += one.schema_bytes
        if examined > _PIECE:
            examined = 0
            await asyncio.sleep(0)
    return ToolList(
        tools=tuple(listed),
        left_out=max(0, len(tools) - MAX_TOOLS),
        lists_first=any(b"x-mcp-header" in to_json(each.schema) for each in listed),
    )


def _listed(server: McpServer, tool: Tool) -> ListedTool:
    schema_bytes, problem = _measure(tool.input_schema)
    name = tool.name[:_MAX_OWN_NAME]
    if name != tool.name:  # it could not be called by the part that is known of it
        problem = f"its name has more than {_MAX_OWN_NAME} characters"
    elif not server.permits(name):
        problem = "the server's allow and deny lists exclude it"
    return ListedTool(
        name=name,
        offered_name=offered_name(server.prefix, name),
        description=_description(tool),
        schema=tool.input_schema,
        schema_bytes=schema_bytes,
        problem=problem,
    )


def offered_name(prefix: str, name: str) -> str:
    """Return the name by which models know a tool: unique for long names, too."""
    full = f"{prefix}_{_UNNAMABLE.sub('_', name)}"
    if len(full) <= _MAX_NAME:
        return full
    return f"{full[: _MAX_NAME - _HASH - 1]}_{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:_HASH]}"


def _folded(name: str) -> str:
    """Return what must be unique of a tool's name: Strands takes two as one that differ in `-` and `_` alone."""
    return name.replace("-", "_")


def _description(tool: Tool) -> str:
    text = tool.description or tool.title or tool.name[:_MAX_OWN_NAME]
    return text if len(text) <= MAX_DESCRIPTION else f"{text[:MAX_DESCRIPTION]}..."


def _measure(schema: dict[str, Any]) -> tuple[int, str]:
    """Return the bytes of a schema, and why it cannot be used; empty: it can."""
    try:
        size = len(to_json(schema))
    except ValueError:  # nested too deeply
        return 0, f"its schema is nested more than {MAX_SCHEMA_DEPTH} levels deep"
    if size > MAX_SCHEMA_BYTES:
        return size, f"its schema has more than {MAX_SCHEMA_BYTES:,} bytes"
    if schema.get("type") != "object":
        return size, "its schema is not one of an object"
    if _is_deep(schema):
        return size, f"its schema is nested more than {MAX_SCHEMA_DEPTH} levels deep"
    return size, ""


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_SCHEMA_DEPTH):
        children = (each for one in level if isinstance(one, dict | list) for each in _children(one))
        level = [each for each in children if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _children(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
