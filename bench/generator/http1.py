"""Server-sent events over HTTP/1.1: one connection per stream, kept alive between its requests."""

import asyncio
import time

from bench.generator.exchange import Exchange
from bench.generator.plan import Target

_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Http1Connection(asyncio.Protocol):
    """One connection, one request at a time. Bytes are stored as they arrive; the last seven show the end."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's TCP transports are
        self._transport = transport

    async def ask(self, body: bytes, exchange: Exchange) -> str | None:
        """Send a request, and wait until its answer is complete; return its error or None."""
        if self._transport is None or self._transport.is_closing():
            return "the server has closed the connection"
        self._exchange, self._tail = exchange, b""
        exchange.begin()
        self._transport.write(self._head(len(body)) + body)
        return await exchange.done

    def data_received(self, data: bytes) -> None:
        """Store a piece, and check whether it is the last."""
        exchange, now = self._exchange, time.perf_counter()
        if exchange is None:
            return
        exchange.times.append(now)
        exchange.pieces.append(data)
        self._tail = data[-7:] if len(data) >= len(_LAST_CHUNK) else (self._tail + data)[-7:]
        if self._tail == _LAST_CHUNK:
            self._exchange = None
            exchange.end(now)
        elif len(exchange.pieces) == 1 and not data.startswith(b"HTTP/1.1 200 "):
            exchange.end(now, data.decode("latin-1")[:500])

    def connection_lost(self, error: Exception | None) -> None:
        """Fail all pending requests."""
        if self._exchange is not None:
            self._exchange.end(time.perf_counter(), f"connection lost: {error}")

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _head(self, length: int) -> bytes:
        target = self._target
        fields = {
            "host": f"{target.host}:{target.port}",
            "accept": "text/event-stream",
            "content-type": "application/json",
            "content-length": str(length),
            **target.headers,
        }
        lines = [f"POST {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
