"""An HTTP server on a local port, in the current process."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from openrouter_sandbox.streaming.client_connection import SandboxProtocol

_POLL_SECONDS = 0.005
_BACKLOG = 2048
_GRACE_SECONDS = 2.0


class HttpServer:
    """Serves an ASGI application, which finds its client's connection in the scope (`ClientConnection`)."""

    def __init__(self, *, host: str = "127.0.0.1", port: int | None = None) -> None:
        """Create a server that does not listen yet.

        Args:
            host: The address to listen on.
            port: The TCP port; None selects a free one.
        """
        self._address = (host, port or 0)
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def origin(self) -> str:
        """`http://HOST:PORT`."""
        if self._socket is None:
            raise RuntimeError("the sandbox is not running: use `async with` or call `start` first")
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    async def start(self, app: ASGIApp) -> None:
        """Listen, and return when requests are served. A server that was stopped listens on the same port again.

        Raises:
            OSError: The port is in use.
        """
        self._socket = _listen(self._address)
        self._address = self._socket.getsockname()[:2]
        self._server = _Server(
            uvicorn.Config(
                app,
                http=SandboxProtocol,
                log_level="warning",
                log_config=None,  # the host process configures logging
                access_log=False,
                lifespan="off",
                timeout_keep_alive=60,
            )
        )
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Close every connection and stop."""
        if self._server is None or self._serving is None or self._socket is None:
            return
        self._server.end()
        await self._serving
        self._socket.close()
        self._server = self._serving = self._socket = None


def _listen(address: tuple[str, int]) -> socket.socket:
    """Return a listening socket with the protocol number of TCP.

    `socket.create_server` sets the protocol number to 0, and asyncio then does not disable Nagle's algorithm:
    headers and body in two writes would arrive 40 ms apart.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """A uvicorn server without signal handlers: the host process decides when it stops."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    async def main_loop(self) -> None:
        """Run until stopped, like uvicorn's own loop; but stop at once, not at the next tick of 0.1 s."""
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864000
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 0.1)

    def end(self) -> None:
        """Stop serving."""
        self.should_exit = True
        self._ended.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and abort open connections: a stop never waits for a hanging client."""
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for protocol in list(self.server_state.connections):
            transport = getattr(protocol, "transport", None)
            if transport is not None:
                transport.abort()
        if self.server_state.tasks:  # they detect the abort and bill it
            await asyncio.wait(self.server_state.tasks, timeout=_GRACE_SECONDS)
