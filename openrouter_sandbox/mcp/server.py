"""The MCP server in the current process; `python -m openrouter_sandbox.mcp` runs it as its own process."""

from contextlib import AsyncExitStack
from typing import Self

from openrouter_sandbox.http_server import HttpServer
from openrouter_sandbox.mcp.app import McpApp
from openrouter_sandbox.mcp.state import McpState


class McpSandbox:
    """An MCP server: `async with McpSandbox() as server: use(server.url())`.

    Attributes:
        state: What it knows of its calls; it remains over restarts.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int | None = None) -> None:
        """Create a server that does not listen yet.

        Args:
            host: The address to listen on.
            port: The TCP port; None selects a free one.
        """
        self.state = McpState()
        self._http = HttpServer(host=host, port=port)
        self._running = AsyncExitStack()
        self._app: McpApp | None = None

    @property
    def origin(self) -> str:
        """`http://HOST:PORT`."""
        return self._http.origin

    def url(self, path: str = "/mcp") -> str:
        """Return the URL of an endpoint (see `McpApp`)."""
        return f"{self.origin}{path}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before if it was stopped.

        Raises:
            OSError: The port is in use.
        """
        self._app = McpApp(self.state)
        await self._running.enter_async_context(self._app.run())
        await self._http.start(self._app)

    async def stop(self) -> None:
        """Close every connection and stop."""
        await self._http.stop()
        await self._running.aclose()

    async def restart(self) -> None:
        """Stop and start, which loses all sessions."""
        await self.stop()
        await self.start()

    async def forget_sessions(self) -> None:
        """Lose all sessions without closing a connection."""
        if self._app is not None:
            await self._app.forget_sessions()
