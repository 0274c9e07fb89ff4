"""A channel to one client: a response as it is written, noticed when the client leaves, cut on purpose."""

import asyncio
import socket
import struct
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_CONNECTION = "sandbox.connection"


class SandboxProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which lets the application reach the connection: to write fast, and to cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Hand the connection to the application through the ASGI scope."""
        super().connection_made(transport)
        app: Any = self.app

        async def with_connection(scope: Any, receive: Any, send: Any) -> None:
            scope[_CONNECTION] = self
            await app(scope, receive, send)

        self.app = with_connection


class ConnectionCut(Exception):
    """The response has reached the byte at which its scenario closes the connection."""


class Channel:
    """One response: its head, its parts, its end.

    Attributes:
        cut_after: Close the connection after this many bytes of the body; None never does.
        started: Whether the headers were sent.
        was_cut: Whether the scenario closed the connection, and not the client.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.cut_after: int | None = None
        self.started = False
        self.was_cut = False
        self._connection: SandboxProtocol = scope[_CONNECTION]
        self._framed = scope["http_version"] == "1.1"  # HTTP/1.0 knows no chunks
        self._receive = receive
        self._send = send
        self._written = 0

    async def start(self, status: int, content_type: str, headers: dict[str, str] | None = None) -> None:
        """Send the status line and the headers, now."""
        fields = {"content-type": content_type, "cache-control": "no-cache", **(headers or {})}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    def put(self, data: bytes) -> bool:
        """Send a part of the body now; tells whether the client keeps up.

        Each part is an HTTP chunk, written past h11, whose book-keeping costs more than the part itself.
        """
        transport = self._connection.transport
        if data and not transport.is_closing():  # an empty chunk would end the body
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)
        return not self._connection.flow.write_paused

    async def write(self, data: bytes) -> None:
        """Send a part of the body at the client's pace; raises ConnectionCut at the scenario's byte."""
        allowed = len(data) + 1 if self.cut_after is None else self.cut_after - self._written
        part = data[:allowed]
        self._written += len(part)
        if not self.put(part):
            await self._connection.flow.drain()
        if len(data) >= allowed:
            raise ConnectionCut

    async def end(self, data: bytes = b"") -> None:
        """Send the last part."""
        if self.cut_after is not None:
            await self.write(data)
        await self._send({"type": "http.response.body", "body": b"" if self.cut_after else data, "more_body": False})

    async def respond(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        """Send a whole response."""
        length = {"content-length": str(len(body))}
        await self.start(status, content_type, {**length, **(headers or {})})
        await self.end(body)

    async def until_left(self) -> None:
        """Return when the client has gone, or the response is complete."""
        message: Message = {"type": "http.request"}
        while message["type"] != "http.disconnect":
            message = await self._receive()

    async def cut(self, *, reset: bool = False) -> None:
        """Close the connection under the response; `reset` sends a TCP reset instead of an orderly end."""
        self.was_cut = True
        transport = self._connection.transport
        if reset:
            raw: socket.socket = transport.get_extra_info("socket")
            if raw.fileno() >= 0:  # the client may have been faster
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        await self.until_left()
