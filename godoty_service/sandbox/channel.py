"""A channel to one client: a response as it is written, noticed when the client leaves, cut on purpose."""

import asyncio
import socket
import struct
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "sandbox.transport"


class SandboxProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which lets the application reach the connection to cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Hand the transport to the application through the ASGI scope."""
        super().connection_made(transport)
        app: Any = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[_TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


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
        self._transport: asyncio.Transport | None = scope.get(_TRANSPORT)
        self._receive = receive
        self._send = send
        self._written = 0

    async def start(self, status: int, content_type: str, headers: dict[str, str] | None = None) -> None:
        """Send the status line and the headers, now."""
        fields = {"content-type": content_type, "cache-control": "no-cache", **(headers or {})}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes) -> None:
        """Send a part of the body; raises ConnectionCut at the byte where the scenario wants it."""
        if self.cut_after is None:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            return
        allowed = self.cut_after - self._written
        part = data[:allowed]
        self._written += len(part)
        await self._send({"type": "http.response.body", "body": part, "more_body": True})
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
        if self._transport is None:
            raise RuntimeError("only a server with SandboxProtocol can cut connections")
        self.was_cut = True
        if reset:
            raw: socket.socket = self._transport.get_extra_info("socket")
            if raw.fileno() >= 0:  # the client may have been faster
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()
        await self.until_left()
