"""A proxy that cuts its connections after a number of bytes, or keeps back what the server sends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class CuttingProxy:
    """Forwards TCP connections to a server.

    Attributes:
        address: The address for clients.
        cuts: How often it has cut its connections.
        refuses: New connections are closed at once.
    """

    def __init__(self, target: str) -> None:
        self.address = ""
        self.cuts = 0
        self.refuses = False
        host, _, port = target.rpartition(":")
        self._upstream = (host, int(port))
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._left: int | None = None  # bytes of the server until the cut
        self._mute = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._abort()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    @property
    def armed(self) -> bool:
        """Whether a cut is to come."""
        return self._left is not None

    def cut_after(self, count: int) -> None:
        """Cut all connections once the server has sent a number of bytes, in the middle of a frame or not."""
        self._left = count

    def mute(self) -> None:
        """Keep back what the server sends, until the connections are cut."""
        self._mute = True

    def cut(self) -> None:
        """Cut all connections now; later ones are forwarded."""
        self.cuts += 1
        self._left, self._mute = None, False
        self._abort()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        except OSError:  # the server is dead
            writer.transport.abort()
            return
        self._writers += [writer, upstream_writer]
        for pump in (self._up(reader, upstream_writer), self._down(upstream_reader, writer)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if self._mute:
                    continue
                if self._left is not None and len(data) >= self._left:
                    writer.write(data[: self._left])
                    await asyncio.sleep(0)  # what was written leaves before the reset
                    self.cut()
                    return
                if self._left is not None:
                    self._left -= len(data)
                writer.write(data)
                await writer.drain()
        writer.close()
