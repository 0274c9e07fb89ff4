"""A connection to an MCP server: opened when it is first needed, and opened anew if the server has lost its session."""

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from mcp_types import CallToolResult, InputRequiredResult, Tool

from godoty_service.agents.mcp.errors import McpFailure, McpUnavailable, cut
from godoty_service.agents.mcp.links import Progress, ServerLink
from godoty_service.agents.mcp.tool_list import MAX_TOOLS
from godoty_service.agents.mcp.transport import Exchange

if TYPE_CHECKING:
    from mcp.client import ClientSession

    from godoty_service.agents.mcp.client import OpenClient

Result = TypeVar("Result")

_CLIENT = "godoty_service.agents.mcp.client"


class ClientModule(Protocol):
    """The module `client`, as this one uses it."""

    OpenClient: "type[OpenClient]"

    async def call_tool(
        self, session: "ClientSession", tool: str, arguments: dict[str, Any], progress: Progress, /
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool."""

    async def list_tools(self, session: "ClientSession", /) -> list[Tool]:
        """Return the tools of a server."""

    async def outcome(self, task: "asyncio.Task[Result]", exchange: Exchange, /) -> Result:
        """Wait for a request."""


async def client_module() -> ClientModule:
    """Return the module `client`, imported when it is first needed: it takes half a second, and 20 MB of memory."""
    global _loaded  # noqa: PLW0603 - modules are global
    if _loaded is None:
        _loaded = cast("ClientModule", await asyncio.to_thread(import_module, _CLIENT))
    return _loaded


_loaded: ClientModule | None = None


class McpConnection:
    """A client of one server, for one turn or for the list of its tools."""

    def __init__(
        self,
        link: Callable[[], ServerLink],
        *,
        max_bytes: int,
        on_list_changed: Callable[[], None] | None = None,
    ) -> None:
        """Create a connection that is not open yet.

        Args:
            link: Returns what all clients of the server share, for a client that is about to be opened.
            max_bytes: Bytes of one answer.
            on_list_changed: Called when the server says that its list of tools has changed; None: it is not asked.
        """
        self._link = link
        self._max_bytes = max_bytes
        self._on_list_changed = on_list_changed
        self._open: OpenClient | None = None
        self._closed = False

    async def open(self) -> "ClientSession":
        """Open the client, unless it is open.

        Raises:
            McpUnavailable: The server cannot be reached, or does not speak the protocol.
        """
        return (await self._opened()).ready.result()

    async def call(self, tool: str, arguments: dict[str, Any], progress: Progress) -> CallToolResult:
        """Call a tool. If the server has lost the session, nothing ran: the call is sent again, once.

        Cancelling the wait cancels the call, also at the server.

        Args:
            tool: The server's name of the tool.
            arguments: The input.
            progress: Called with progress, total and message, as the server reports them.

        Raises:
            McpFailure: There is no result.
        """
        module = await client_module()
        result = await self._request(lambda session: module.call_tool(session, tool, arguments, progress))
        if isinstance(result, InputRequiredResult):
            raise McpFailure("The tool asks for input from the user, which is not supported.")
        return result

    async def list_tools(self) -> list[Tool]:
        """Return the server's tools, as many as the client reads; those that agents may have are without its secrets.

        Raises:
            McpFailure: There is no list, or it has too many pages.
        """
        module = await client_module()
        tools = await self._request(module.list_tools)
        return [*self._link().masked_tools(tools[:MAX_TOOLS]), *tools[MAX_TOOLS:]]  # the latter are only counted

    def mask(self, text: str) -> str:
        """Return a text of the server without its credentials."""
        return self._link().mask(text)

    def close(self) -> None:
        """Close the client soon, without waiting for it."""
        self._closed = True
        if self._open is not None:
            self._open.close()

    async def _opened(self) -> "OpenClient":
        """Return the client once it is open.

        Raises:
            McpUnavailable: The server cannot be reached, or does not speak the protocol.
        """
        module = await client_module()
        known = self._link().protocol is not None
        client = self._client(module)
        try:
            await asyncio.shield(client.ready)
        except McpUnavailable as error:
            if not (known and error.answered):
                raise
            self._link().protocol = None  # the server may speak another version now
            client = self._client(module)
            await asyncio.shield(client.ready)
        return client

    def _client(self, module: "ClientModule") -> "OpenClient":
        if self._closed:
            raise McpUnavailable("The connection was closed.")
        if self._open is None or self._open.ended:
            self._open = module.OpenClient(
                self._link(), max_bytes=self._max_bytes, on_list_changed=self._on_list_changed
            )
        return self._open

    async def _request(self, send: Callable[["ClientSession"], Coroutine[Any, Any, Result]]) -> Result:
        """Send a request, once again if the server did not know the session.

        Raises:
            McpFailure: It failed.
        """
        module = await client_module()
        for attempt in (1, 2):
            exchange = Exchange()
            client = await self._opened()
            session = client.ready.result()
            try:
                return await module.outcome(client.start(send(session), exchange), exchange)
            except McpFailure as failure:
                if not exchange.session_lost or attempt == 2:  # noqa: PLR2004 - the second
                    raise McpFailure(failure.text, said=cut(self.mask(failure.said))) from None
                client.close()
                if session.discover_result is not None:  # it has no sessions: it spoke another version
                    self._link().protocol = None
        raise AssertionError("unreachable")
