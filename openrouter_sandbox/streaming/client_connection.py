"""The connection to one client: writes a response, detects a disconnect, closes early for a scenario."""

import asyncio
import socket
import struct
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_CONNECTION = "sandbox.connection"


class SandboxProtocol(H11Protocol):
    """uvicorn's HTTP protocol, exposed to the application for fast writes and for closing the connection early."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Pass this protocol to the application in the ASGI scope."""
        super().connection_made(transport)
        app: Any = self.app

        async def with_connection(scope: Any, receive: Any, send: Any) -> None:
            scope[_CONNECTION] = self
            await app(scope, receive, send)

        self.app = with_connection


class ConnectionCut(Exception):
    """The response has reached the byte at which the scenario closes the connection."""


class ClientConnection:
    """The connection that carries one response.

    Attributes:
        cut_after: Number of body bytes after which the connection is closed; None for no limit.
        started: Whether the headers were sent.
        was_cut: Whether the scenario closed the connection, not the client.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.cut_after: int | None = None
        self.started = False
        self.was_cut = False
        self._protocol: SandboxProtocol = scope[_CONNECTION]
        self._framed = scope["http_version"] == "1.1"  # HTTP/1.0 has no chunked encoding
        self._receive = receive
        self._send = send
        self._written = 0

    @property
    def is_closing(self) -> bool:
        """Whether the connection is closed, or about to be."""
        return bool(self._protocol.transport.is_closing())

    async def start(self, status: int, content_type: str, headers: dict[str, str] | None = None) -> None:
        """Send the status line and the headers."""
        fields = {"content-type": content_type, "cache-control": "no-cache", **(headers or {})}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    def write_nowait(self, data: bytes) -> bool:
        """Write a part of the body to the transport; return False if its write buffer is full.

        Each part is an HTTP chunk, written without h11, whose state machine costs more than the write itself.
        """
        transport = self._protocol.transport
        if data and not transport.is_closing():  # an empty chunk would end the body
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)
        return not self._protocol.flow.write_paused

    async def write(self, data: bytes) -> None:
        """Write a part of the body and wait until the client has read enough.

        Raises:
            ConnectionCut: The body has reached `cut_after` bytes.
        """
        allowed = len(data) + 1 if self.cut_after is None else self.cut_after - self._written
        part = data[:allowed]
        self._written += len(part)
        if not self.write_nowait(part):
            await self._protocol.flow.drain()
        if len(data) >= allowed:
            raise ConnectionCut

    async def end(self, data: bytes = b"") -> None:
        """Send the last part and end the response."""
        if self.cut_after is not None:
            await self.write(data)
        await self._send({"type": "http.response.body", "body": b"" if self.cut_after else data, "more_body": False})

    async def respond(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        """Send a complete response."""
        length = {"content-length": str(len(body))}
        await self.start(status, content_type, {**length, **(headers or {})})
        await self.end(body)

    async def wait_disconnected(self) -> None:
        """Wait until the client has disconnected or the response is complete."""
        message: Message = {"type": "http.request"}
        while message["type"] != "http.disconnect":
            message = await self._receive()

    async def cut(self, *, reset: bool = False) -> None:
        """Close the connection before the response is complete; `reset` sends a TCP reset instead of a FIN."""
        self.was_cut = True
        transport = self._protocol.transport
        if reset:
            raw: socket.socket = transport.get_extra_info("socket")
            if raw.fileno() >= 0:  # -1 if the client has closed the connection first
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        await self.wait_disconnected()
