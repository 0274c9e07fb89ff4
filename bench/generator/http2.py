"""The part of gRPC over HTTP/2 that a load generator needs: requests, frames, and unlimited windows.

A message costs a few microseconds here, where grpc.aio's client would cost as much as the server that is measured.
"""

import asyncio
import struct
import time

from bench.generator.exchange import Exchange
from bench.generator.plan import Target

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_WIDEST = 2**31 - 1
_HEADER = struct.Struct(">BHBBL")  # length in 24 bits, type, flags, stream
_SETTINGS_PAYLOAD = struct.pack(">HLHLHL", 1, 0, 2, 0, 4, _WIDEST)  # no header table, no push, the widest window


class Http2Connection(asyncio.Protocol):
    """One connection; any number of concurrent requests."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._transport: asyncio.Transport | None = None
        self._exchanges: dict[int, Exchange] = {}
        self._next = 1
        self._rest = b""
        self._head = _header_block(target)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the connection preface."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's TCP transports are
        self._transport = transport
        window = struct.pack(">L", _WIDEST - 65_535)
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, _SETTINGS_PAYLOAD) + _frame(8, 0, 0, window))

    async def ask(self, body: bytes, exchange: Exchange) -> str | None:
        """Send a request, and wait until its answer is complete; return its error or None."""
        if self._transport is None or self._transport.is_closing():
            return "the server has closed the connection"
        stream, self._next = self._next, self._next + 2
        self._exchanges[stream] = exchange
        message = b"\0" + struct.pack(">L", len(body)) + body
        exchange.begin()
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, stream, self._head) + _frame(_DATA, _END_STREAM, stream, message)
        )
        return await exchange.done

    def data_received(self, data: bytes) -> None:
        """Pass each frame's payload to its exchange."""
        now = time.perf_counter()
        buffer = self._rest + data if self._rest else data
        at, size, exchanges = 0, len(buffer), self._exchanges
        while size - at >= 9:  # noqa: PLR2004 - a frame's header
            high, low, kind, flags, stream = _HEADER.unpack_from(buffer, at)
            end = at + 9 + (high << 16) + low
            if end > size:
                break
            if kind == _DATA and (exchange := exchanges.get(stream)) is not None:
                exchange.times.append(now)
                exchange.pieces.append(buffer[at + 9 : end])
                if flags & _END_STREAM:
                    self._ended(stream, now)
            elif kind != _DATA:
                self._control(kind, flags, stream, buffer[at + 9 : end], now)
            at = end
        self._rest = buffer[at:]

    def connection_lost(self, error: Exception | None) -> None:
        """Fail all pending requests."""
        self._fail(f"connection lost: {error}")

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _control(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        """Process a frame without a message."""
        if kind in {_HEADERS, _CONTINUATION} and (exchange := self._exchanges.get(stream)) is not None:
            exchange.trailer = payload
            if flags & _END_STREAM:
                self._ended(stream, now)
        elif kind in {_SETTINGS, _PING} and not flags & _ACK and self._transport is not None:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _RST_STREAM and (exchange := self._exchanges.pop(stream, None)) is not None:
            exchange.end(now, f"the stream was reset: {payload.hex()}")
        elif kind == _GOAWAY:
            self._fail(f"the server goes away: {payload[8:].decode('latin-1')}")

    def _ended(self, stream: int, now: float) -> None:
        exchange = self._exchanges.pop(stream)
        status = _status(exchange.trailer)
        exchange.end(now, None if status == "0" else f"gRPC status {status}: {exchange.trailer.decode('latin-1')}")

    def _fail(self, why: str) -> None:
        for exchange in self._exchanges.values():
            exchange.end(time.perf_counter(), why)
        self._exchanges.clear()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _header_block(target: Target) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": target.path,
        ":authority": f"{target.host}:{target.port}",
        "te": "trailers",
        "content-type": "application/grpc",
        **target.headers,
    }
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields.items())


def _string(text: str) -> bytes:
    """Return a string literal of HPACK, with a length prefix of 7 bits."""
    data, prefix = text.encode(), 127
    if len(data) < prefix:
        return bytes([len(data)]) + data
    rest = len(data) - prefix
    if rest >= 128:  # noqa: PLR2004 - one more byte of length is all that a key needs
        raise ValueError("a header is too long for the load generator")
    return bytes([prefix, rest]) + data


def _status(block: bytes) -> str:
    """Return the value of grpc-status in a header block: without a header table it is not compressed."""
    _, found, rest = block.partition(b"grpc-status")
    return rest[1 : 1 + rest[0]].decode("latin-1") if found and rest else "unknown"
