"""Raw HTTP/2, for connections and calls that no gRPC client would make."""

import asyncio
import struct
from collections.abc import Iterable
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
_WINDOW = 65_535
_LARGEST = 16_384


def frame(kind: int, body: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Encode a frame."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def _text(value: str) -> bytes:
    data = value.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, length = len(data) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + data


def header_block(path: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Encode the headers of a gRPC call without compression."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *headers,
    ]
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def message(body: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """Encode a gRPC message, whose length prefix may be wrong."""
    return bytes([compressed]) + struct.pack(">I", len(body) if length is None else length) + body


class Http2:
    """A connection. A background task reads what the server sends.

    Attributes:
        frames: The frames that came: kind, flags, stream and body.
        closed: Is set once the server has closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._answers = True
        self._next = 1
        self._initial = _WINDOW
        self._windows: dict[int, int] = {0: _WINDOW}
        self._change = asyncio.Event()
        self._ended: set[int] = set()
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.closed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls, target: str, *, settings: bytes = b"", preface: bytes | None = None, answers: bool = True
    ) -> Self:
        """Connect and send a preface, which may be wrong; acknowledge settings and pings if requested."""
        host, _, port = target.rpartition(":")
        connection = cls(*await asyncio.open_connection(host, int(port)))
        connection._answers = answers
        connection.send(PREFACE + frame(SETTINGS, settings) if preface is None else preface)
        return connection

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    def begin(self, path: str, headers: Iterable[tuple[str, str]] = (), *, end: bool = False) -> int:
        """Start a call; return its stream."""
        stream, self._next = self._next, self._next + 2
        flags = END_HEADERS | (END_STREAM if end else 0)
        self._windows[stream] = self._initial
        self.send(frame(HEADERS, header_block(path, headers), flags=flags, stream=stream))
        return stream

    async def send_data(self, stream: int, body: bytes, *, end: bool = False) -> int:
        """Send data within the flow-control windows until the server ends the stream; return the bytes sent."""
        sent = 0
        while sent < len(body) and stream not in self.ended() and not self.closed.is_set():
            size = min(self._windows[0], self._windows[stream], _LARGEST, len(body) - sent)
            if size <= 0:
                self._change.clear()
                await self._change.wait()
                continue
            last = end and sent + size == len(body)
            self.send(frame(DATA, body[sent : sent + size], flags=END_STREAM if last else 0, stream=stream))
            self._windows[0] -= size
            self._windows[stream] -= size
            sent += size
            await self._writer.drain()
        return sent

    def ended(self) -> set[int]:
        """Return the streams that the server has ended."""
        return self._ended

    async def close(self) -> None:
        """Close the connection."""
        self._reading.cancel()
        self._writer.close()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                length = int.from_bytes(head[:3])
                body = await self._reader.readexactly(length)
                self.frames.append((head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF, body))
                if head[3] == RST_STREAM or (head[3] in (DATA, HEADERS) and head[4] & END_STREAM):
                    self._ended.add(self.frames[-1][2])
                if head[3] == SETTINGS and not head[4] & ACK:
                    self._settle(body)
                    self._answer(frame(SETTINGS, flags=ACK))
                if head[3] == WINDOW_UPDATE:
                    stream = self.frames[-1][2]
                    self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(body)
                self._change.set()
                if head[3] == PING and not head[4] & ACK:
                    self._answer(frame(PING, body, flags=ACK))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
            self._change.set()

    def _answer(self, data: bytes) -> None:
        if self._answers:
            self.send(data)

    def _settle(self, body: bytes) -> None:
        for place in range(0, len(body), 6):
            if int.from_bytes(body[place : place + 2]) == INITIAL_WINDOW_SIZE:
                change = int.from_bytes(body[place + 2 : place + 6]) - self._initial
                self._initial += change
                self._windows.update({each: size + change for each, size in self._windows.items() if each})
